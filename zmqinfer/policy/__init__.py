"""One decision a file. Pure: no clock, no socket, no thread; `now` is an argument in seconds.

ring         which worker is a key's home, and who comes next
placement    who takes a request now: the home, unless it holds more than its bounded share
rotation     which workers get work at all, by how they did of late
waiting      in which order requests wait when nobody can take them
fair_queue   how clients share what they wait for
backlog      how much waits before a request that comes
drain        how fast a queue empties, and so how long who joins it will wait
admission    whether a request is let in at all: requests and bytes
twice        whether a request may run more than once
quarantine   which inputs are not run again for a while
wheel        which requests have run out of time
timers       what is to be done later, where slots of 10 ms would be too coarse
liveness     which peers have been silent for too long
batching     when a batch closes
curve        what a batch of n rows costs, and how often rows arrive
hedging      when a second worker is asked
retry        whether, and when, a client asks again after it was refused
arena        which part of a piece of memory holds what
"""
