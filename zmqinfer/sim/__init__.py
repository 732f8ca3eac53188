"""The machines of production on a virtual network, in virtual time.

One heap of events, seeded randomness and nothing else: the same scenario and seed give the same run,
event for event. Only sockets, clocks and models are not real here; the machines, their outboxes and
every byte of the wire are.
"""
