"""What each node does in a turn of its loop, in production and in the simulator: sockets and engines are ports.

A turn takes a bounded number of messages, feeds the machine, and sends what its outboxes hold. A shell waits between
turns, for the sockets and for the instant that the turn names; the simulator lets virtual time pass.

ports      what a loop needs of a socket
inbox      what other threads want of the one that turns a loop
gateway    two ROUTERs around a GatewayMachine
worker     a DEALER for each gateway around a WorkerMachine
client     the same around a ClientMachine, and the ends of the waits for calls
dialler    the sockets of a client or a worker, one for each gateway
"""
