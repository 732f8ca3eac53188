"""Measurements that are no tests.

compare/           `./run.sh compare`: the product, its floors and its peers in one run
peers/             the other servers, each in an environment of its own
floors/            raw pyzmq over the same hops: what moving the bytes costs
models/            what zmqinfer serves in a comparison
micro/             micro-benchmarks of the pure parts, and two commits as a ratio
batching/          what batching costs and gains at every load
shared.py          from which size on shared memory beats frames
scaling.py         throughput with 1 to 16 workers
cost_table.py      where each microsecond of CPU goes
bare_loop.py       a gateway's inner work without sockets
against_floor.py   the product beside its floors, in a minute
children.py        processes that measure, and what they tell their parent
"""
