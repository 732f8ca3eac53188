"""One decision a file. Pure: no clock, no socket, no thread; `now` is an argument in seconds.

ring        which worker is a key's home, and who comes next
placement   who takes a request now: the home, unless it holds more than its bounded share
waiting     in which order requests wait when nobody can take them
admission   whether a request is let in at all: requests and bytes
wheel       which requests have run out of time
liveness    which peers have been silent for too long
batching    when a batch closes
retry       whether, and when, a client asks again after it was refused
arena       which part of a piece of memory holds what
curve       what a batch of n rows costs, and how often rows arrive
"""
