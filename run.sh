#!/usr/bin/env bash
# Set-up, the main job and the tests of zmqinfer; `./run.sh help` lists what it can do. Needs bash 3.2 or newer.
set -eu

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CLIENTS=${CLIENTS:-tcp://127.0.0.1:5555}
WORKERS_AT=${WORKERS_AT:-tcp://127.0.0.1:5556}
WORKERS=${WORKERS:-3}
VENV=$ROOT/.venv
RUN=$ROOT/.run
OUT=$ROOT/results

usage() {
  cat <<'EOF'
./run.sh                 install, serve the shipped models, read the held-out digits, run the three presets
./run.sh test            install with the tools for development, then lint, check types and run all tests
                         --lowest: only the tests, in .venv-lowest, with the lowest versions that pyproject.toml declares
                         --sdist: the same in a folder made from the source distribution
./run.sh up              serve the shipped models until Ctrl-C
./run.sh bench PRESET    light, medium or heavy, on a cluster of its own
./run.sh compare         measure zmqinfer beside its floors and other servers, at most 30 minutes; --quick: 5
./run.sh chaos           five minutes of faults for real processes under load; with options as python -m trials.chaos has
                         --network namespaces: each node on a host of its own, in a network namespace (Linux, root)
./run.sh promises        some five minutes: each figure of docs/RELIABILITY.md beside what is asked; python -m trials.promises
./run.sh soak            twenty minutes of load with churn, and whether memory stays flat; python -m trials.soak
./run.sh fuzz            ten million broken messages for the decoder, then 100,000 for a live gateway; --quick: a twentieth
                         wire or live: one of both, with options as python -m trials.fuzz_wire and trials.fuzz_live have
./run.sh stop            end what an earlier ./run.sh left running
./run.sh help            this text

Environment: PYTHON (3.11 or newer), WORKERS (3), CLIENTS (tcp://127.0.0.1:5555), WORKERS_AT (tcp://127.0.0.1:5556)
EOF
}

say() { printf '%s\n' "$*"; }
fail() { printf 'run.sh: %s\n' "$*" >&2; exit "${2:-2}"; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      say "$candidate"
      return
    fi
  done
  fail "no Python 3.11 or newer among: ${PYTHON:-python3 python3.13 python3.12 python3.11}; install one, or name it: PYTHON=... ./run.sh"
}

# What pyproject.toml asks for at least, as constraints for pip.
lowest() {
  "$1" - "$ROOT/pyproject.toml" <<'EOF'
import sys, tomllib

with open(sys.argv[1], "rb") as file:
    for one in tomllib.load(file)["project"]["dependencies"]:
        package, semicolon, marker = one.partition(";")
        print(package.replace(">=", "==") + semicolon + marker)
EOF
}

# install [dev [lowest]]: makes .venv, or leaves it alone when its stamp says that it is what we want.
install() {
  local extra=${1:-} constraint='' python stamp wanted
  python=$(find_python)
  stamp=$VENV/.stamp
  wanted="$("$python" -c 'import sys; print(sys.version)' | tr '\n' ' ') $(cksum <"$ROOT/pyproject.toml")"
  if [ -f "$stamp" ] && { [ "$(cat "$stamp")" = "dev $wanted" ] || { [ -z "$extra" ] && [ "$(cat "$stamp")" = " $wanted" ]; }; }; then
    return
  fi
  say "installing into ${VENV#"$ROOT"/} (once)"
  rm -f "$stamp"
  "$python" -m venv "$VENV" || fail "cannot make .venv; on Debian: apt-get install python3-venv"
  if [ "${2:-}" = lowest ]; then
    constraint=$VENV/lowest.txt
    lowest "$python" >"$constraint"
  fi
  PIP_DISABLE_PIP_VERSION_CHECK=1 "$VENV/bin/python" -m pip install --quiet ${constraint:+--constraint "$constraint"} \
    --editable "$ROOT${extra:+[$extra]}" 2>"$VENV/pip.log" ||
    { cat "$VENV/pip.log" >&2; fail "pip could not install zmqinfer; see above"; }
  printf '%s' "$extra $wanted" >"$stamp"
}

# When a process began: with its id this names it for good, for ids are given again.
started() {
  if [ -r "/proc/$1/stat" ]; then
    sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20
  else
    ps -o lstart= -p "$1" 2>/dev/null
  fi
}

# Ends the cluster that .run names, if it is still that process.
stop() {
  [ -f "$RUN/up" ] || return 0
  local pid began waited=0
  pid=$(sed -n 1p "$RUN/up")
  began=$(sed -n 2p "$RUN/up")
  if [ -n "$began" ] && [ "$(started "$pid")" = "$began" ]; then
    kill -TERM "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null && [ "$(started "$pid")" = "$began" ]; do
      waited=$((waited + 1))
      if [ "$waited" -gt 400 ]; then
        kill -KILL "$pid" 2>/dev/null || true
        break
      fi
      sleep 0.1
    done
  fi
  rm -f "$RUN/up"
}

start() {
  mkdir -p "$RUN"
  stop
  "$VENV/bin/zmqinfer" up --workers "$WORKERS" --clients "$CLIENTS" --workers-at "$WORKERS_AT" --log-level warning \
    >"$RUN/up.log" 2>&1 &
  local pid=$!
  printf '%s\n%s\n' "$pid" "$(started "$pid")" >"$RUN/up"
  trap stop EXIT
  trap 'exit 130' INT TERM
  if ! "$VENV/bin/zmqinfer" status --gateway "$CLIENTS" --wait-workers "$WORKERS" --timeout-s 30 >/dev/null 2>"$RUN/wait.log" \
    || ! kill -0 "$pid" 2>/dev/null; then
    cat "$RUN/up.log" >&2
    fail "the cluster did not start; to choose other ports: CLIENTS=tcp://127.0.0.1:6555 WORKERS_AT=tcp://127.0.0.1:6556 ./run.sh"
  fi
}

main_job() {
  install
  start
  local accuracy
  accuracy=$("$VENV/bin/python" "$ROOT/examples/digits.py" --gateway "$CLIENTS")
  say "$accuracy"
  say "three loads and batching on against off, about half a minute"
  local code=0
  "$VENV/bin/zmqinfer" bench --gateway "$CLIENTS" --preset light --preset medium --preset heavy --out "$OUT" \
    >"$RUN/bench.log" || code=$?
  cat "$RUN/bench.log"
  stop
  [ "$code" = 0 ] || fail "the benchmark ended with $code; see above" "$code"
  say
  say "served   digits, echo and sleep with one gateway and $WORKERS workers; all are stopped again"
  say "read     $accuracy"
  say "load     $(head -n 1 "$RUN/bench.log")"
  say "figures  results/performance_report.txt, results/benchmark_results.json"
  say "pictures results/latency_distribution.png, node_distribution.png, performance_comparison.png"
}

run_tests() {
  cd "$ROOT"
  case "${1:-}" in
    --sdist)
      shift
      test_sdist "$@"
      return
      ;;
    --lowest)
      shift
      VENV=$ROOT/.venv-lowest
      install dev lowest
      ;;
    *)
      install dev
      "$VENV/bin/ruff" check --quiet .
      "$VENV/bin/ruff" format --check --quiet .
      "$VENV/bin/mypy"
      ;;
  esac
  local why code=0
  why=$("$VENV/bin/python" -m trials.netns 2>&1) || code=$?
  case $code in
    0) ;;
    3)
      say "the tests with network namespaces are left out: $(printf '%s' "$why" | tail -n 1)"
      export ZMQINFER_WITHOUT="${ZMQINFER_WITHOUT:+$ZMQINFER_WITHOUT,}netns"
      ;;
    *) printf '%s\n' "$why" >&2; fail "trials.netns failed, which is not that hosts cannot be made here; see above" "$code" ;;
  esac
  exec "$VENV/bin/python" -m pytest --quiet "$@"
}

# Tests what users of a package index get, in a folder that has nothing else.
test_sdist() {
  install dev
  local folder code=0
  folder=$(mktemp -d)
  "$VENV/bin/python" -m hatchling build --target sdist --directory "$folder"
  tar -xzf "$folder"/zmqinfer-*.tar.gz -C "$folder" --strip-components 1
  "$folder/run.sh" test "$@" || code=$?
  rm -rf "$folder"
  return "$code"
}

# fuzz [--quick | wire OPTION... | live OPTION...]
fuzz() {
  local which='' executions=10000000 messages=100000
  case "${1:-}" in
    "") ;;
    --quick) executions=500000 messages=5000 && shift ;;
    wire | live) which=$1 && shift ;;
    *) fail "fuzz takes --quick, or wire or live with their options; it got '$1'" ;;
  esac
  [ -n "$which" ] || [ $# = 0 ] || fail "fuzz takes nothing more here; it got '$*'"
  install
  cd "$ROOT"
  # Where there is no such package for this Python, inputs are drawn at random, and the output says so.
  "$VENV/bin/python" -c 'import atheris' 2>/dev/null || "$VENV/bin/python" -m pip install --quiet 'atheris>=3' 2>/dev/null || true
  [ -z "$which" ] || exec "$VENV/bin/python" -m "trials.fuzz_$which" "$@"
  "$VENV/bin/python" -m trials.fuzz_wire --executions "$executions"
  exec "$VENV/bin/python" -m trials.fuzz_live --messages "$messages"
}

case "${1:-}" in
  "") main_job ;;
  test) shift; run_tests "$@" ;;
  up) install; exec "$VENV/bin/zmqinfer" up --workers "$WORKERS" --clients "$CLIENTS" --workers-at "$WORKERS_AT" ;;
  bench)
    case "${2:-}" in light | medium | heavy) ;; *) fail "bench takes light, medium or heavy; it got '${2:-}'" ;; esac
    install
    start
    "$VENV/bin/zmqinfer" bench --gateway "$CLIENTS" --preset "$2" --no-compare --out "$OUT"
    ;;
  compare)
    shift
    install
    cd "$ROOT"
    exec "$VENV/bin/python" -m bench.compare "$@"
    ;;
  chaos | promises | soak)
    trial=$1
    shift
    install
    cd "$ROOT"
    exec "$VENV/bin/python" -m "trials.$trial" "$@"
    ;;
  fuzz) shift; fuzz "$@" ;;
  stop) stop ;;
  help | -h | --help) usage ;;
  *) usage >&2; fail "'$1' is none of these" ;;
esac
