"""The shells: sockets, clocks, threads and signals around the machines. No decision is taken here.

sockets     makes ZeroMQ sockets; receive and send, frame by frame
waker       lets one thread interrupt another's poll
gateway     two ROUTERs around a GatewayMachine
worker      a DEALER for each gateway around a WorkerMachine, and an engine thread for each model
engine      runs one batch: stack, infer, check, split; bisects a batch that fails
models      finds model folders and loads them
report      the only module that logs
dialler     the sockets of a client, for both clients
"""
