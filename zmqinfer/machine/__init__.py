"""The three machines: gateway, worker and client. Pure: records in, records out, `now` as an argument.

    outbox      what must be sent to one peer; the shell empties it once a turn
    link        the dialling side of a session: say who you are, stay alive, begin again
    flight      one request in a gateway's hands
    routes      which engines serve a model, and who waits for them
    members     the gateway's clients and workers: joining, leaving, being lost
    gateway     REQUEST in, REPLY out: admission, placement, failover, deadlines
    snapshot    what `status` shows of a gateway
    worker      batches from requests, replies from what the engines made of them
    client      calls pending at one or more gateways

Each machine has `wake_at()`, so a shell needs one timer, and `check()`, which asserts its invariants.
"""
