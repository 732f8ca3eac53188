"""Measurements that are no tests.

compare          `./run.sh compare`: the product, its floors and its peers in one run
peers            the other servers, each in an environment of its own
floors           raw pyzmq over the same hops: what moving the bytes costs
models           what zmqinfer serves in a comparison
micro            micro-benchmarks of the pure parts, and two commits as a ratio
batching         what batching costs and gains at every load
calibration      whether the simulator is to be believed: thirty scenarios, live and simulated
hedging          what hedging does to the slowest calls, in virtual time
shared           from which size on shared memory beats frames
scaling          throughput with 1 to 16 workers
cost_table       where each microsecond of CPU goes
bare_loop        a gateway's inner work without sockets
clients          the clients of two commits as ratios
client_roles     what is measured of each
against_floor    the product beside its floors, in a minute
children         processes that measure, and what they tell their parent
trees            commits checked out beside each other
command          how all of them are asked, and that they end their processes
packages         programs of Debian's packages that they need
"""
