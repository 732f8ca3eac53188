"""The three machines: gateway, worker and client. Pure: records in, records out, `now` as an argument.

Of all three:
    outbox       what must be sent to one peer; the shell empties it once a turn
    link         the dialling side of a session: say who you are, stay alive, begin again
    block        calls that are alike and travel as one record

The gateway's:
    intake       which requests are let in
    gateway      REQUEST in, REPLY out: admission, placement, failover, deadlines
    members      who has a session, on which connection, and who offends
    clients      its clients: greeting, coming back on another connection, vanishing
    workers      its workers: joining, telling how they are, draining, being lost
    routes       which engines serve a model, and who waits for them
    flight       one request in its hands
    ledger       its books: which calls were let in, and how each of them ended
    dispatches   what its workers have in hand, and which reply belongs to which request
    hedges       requests that two workers have at the same time
    suspects     requests that may have ended their worker's process
    snapshot     what `status` shows of it

The worker's:
    worker       batches from requests, replies from what the engines made of them
    served       one of its models: what waits for it, what it runs, what it has earned
    task         one request in its hands, and the batch it runs in
    tasks        all of them, from REQUEST to REPLY
    twins        requests that it knows already, by their ids

The client's:
    client       calls pending at one or more gateways
    call         what it waits for: blocks of calls, and questions
    codec        arrays to a request's body, and a reply's body to arrays
    sessions     a client's gateways: greeting, choosing, leaving
    repeats      calls that were refused and are asked again after a pause

Each machine has `wake_at()`, so a shell needs one timer, and `check()`, which asserts its invariants.
"""
