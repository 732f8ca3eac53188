"""The shells: sockets, clocks, threads and signals around the machines. No decision is taken here.

addresses    addresses as people write them
sockets      makes ZeroMQ sockets; receive and send, frame by frame
poller       waits for ZeroMQ sockets and plain descriptors together
waker        lets one thread interrupt another's poll
dialler      the sockets of a client or a worker, one for each gateway
gateway      two ROUTERs around a GatewayMachine
worker       a DEALER for each gateway around a WorkerMachine, and an engine thread for each model
crew         two threads for a worker's loop: one turns it, the other stands by
engine       runs one batch: stack, infer, check, split; bisects a batch that fails
isolation    a model in a process of its own, which the worker outlives
models       finds model folders and loads them
memory       keeps freed memory at hand
shared       large inputs through shared memory, the owner's side and the readers'
connection   what both clients share: machine and sockets
arguments    what a caller says of a call, checked
rows         a call of many rows: pieces, and their results joined
questions    what clients ask of gateways beside calls
io_thread    the thread that owns the sockets of a client that many threads use
waits        what waits for a call of such a client: a thread, or a future
many         one `infer_many` of such a client
async_many   one of an asyncio client, and the task of its asynchronous source
stream       the results of either
report       the only module that logs
"""
