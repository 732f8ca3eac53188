"""Raw floors: what hand-written pyzmq reaches over the same hops that zmqinfer uses.

    bundle_asyncio.py  one asyncio client, one `await` per call, bundles of records through the gateway
    bundle_sync.py     one synchronous client, many requests in flight; also the gateway and workers of both
    message.py         one message per request, forwarded: latency of one in flight, throughput of many
    common.py          child processes, statistics and the command line

A floor has no checks, no deadlines, no heartbeats, no credits and no second chance: it is the cost of moving
the bytes. A product with all of these is measured as a ratio to the floor taken in the same run, because the
machines are noisy. Each is run from the root of the repository:

    python -m bench.floors.bundle_asyncio --seconds 3 --json

and each has `run(in_flight, seconds) -> dict` for scripts that compare. All children end with their parent.
"""
