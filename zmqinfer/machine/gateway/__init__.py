"""The gateway's machine: REQUEST in from clients, out to workers; REPLY back the same way.

machine      its parts put together, and what concerns them all
door         one of its two sockets as the machine sees it: what leaves, and who offended
clients      its clients: greeting, coming back on another connection, vanishing
workers      its workers: joining, telling how they are, draining, being lost
tables       what all of these share, and who this gateway is
members      the workers' sessions and their models, which are replicas
routes       which replicas serve a model, and who waits for them
requests     what is owed to clients, and the dispatches of it to workers
intake       which requests are let in
ledger       its books: which calls were let in, and how each of them ended
scheduler    where requests run: placing, queueing, answering, moving, ending
dispatches   what workers have in hand, and which reply belongs to which dispatch
hedges       when a second worker is asked
suspects     requests that may have ended their worker's process
snapshot     what STATS tells

Each imports only those that stand nearer to the wire or the tables than itself; nobody imports whoever uses it.
"""
