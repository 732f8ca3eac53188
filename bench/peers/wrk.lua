-- POST /infer with the body of a file, for wrk; the file is made by `python -m bench.peers.bodies`.
--
--     wrk -t1 -c50 -d3s --latency -s bench/peers/wrk.lua http://127.0.0.1:8001 -- BODYFILE
--
-- The file may also be named by BODY_FILE. A name that ends in .msgpack says so in the content type. The last
-- line that wrk prints is one line of JSON: requests, errors of all kinds, duration_us, p50_us and p99_us.

function init(args)
  local name = args[1] or os.getenv("BODY_FILE")
  local file = assert(io.open(assert(name, "name a body file after --, or in BODY_FILE"), "rb"))
  wrk.method = "POST"
  wrk.path = "/infer"
  wrk.body = file:read("*a")
  wrk.headers["Content-Type"] = name:match("%.msgpack$") and "application/msgpack" or "application/octet-stream"
  file:close()
  -- No request() below: wrk then sends one string made here, and no Lua runs per request.
end

function done(summary, latency, requests)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "errors": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d}',
    summary.requests,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    summary.duration,
    latency:percentile(50),
    latency:percentile(99)
  ))
end
