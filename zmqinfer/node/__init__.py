"""The shells: sockets, clocks, threads and signals around loops and machines. No decision is taken here.

addresses    addresses as people write them
descriptors  file descriptors: how many there may be, and whether enough are free
sockets      makes ZeroMQ sockets; receive and send, frame by frame
poller       waits for ports, and for other threads that wake it
ports        these sockets as the loops know them, and those of a client or worker together
gateway      a gateway's process: its sockets, its clock, and the loop around them
gate         lets connections in while there are descriptors for them
worker       a DEALER for each gateway around a WorkerMachine
crew         a worker's threads: each model's own, and one that stands by; which of them turns the loop
engine       runs one batch: stack, infer, check, split; bisects a batch that fails
isolation    a model in a process of its own, which the worker outlives
model_process  what runs there
spawn        starts another Python that imports from where this one does
models       finds model folders and loads them
memory       keeps freed memory at hand
shared       large inputs through shared memory, the owner's side and the readers'
connection   what both clients share: machine, sockets, and the loop between them
arguments    what a caller says of a call, checked
rows         a call of many rows: pieces, and their results joined
questions    what clients ask of gateways beside calls
io_thread    the thread that owns the sockets of a client that many threads use
waits        what waits for a call of such a client: a thread, or a future
answers      what a reply tells beside the output
many         one `infer_many` of such a client
async_many   one of an asyncio client, and the task of its asynchronous source
stream       the calls of either, and their results
report       the only module that logs
"""
