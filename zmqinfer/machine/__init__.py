"""The three machines. Pure: records in, records out, `now` as an argument.

gateway    requests in from clients, out to workers; replies back the same way
worker     batches from requests, replies from what the engines made of them
client     calls pending at one or more gateways

What they share:
outbox     what must be sent to one peer; the shell empties it once a turn
link       the dialling side of a session: say who you are, stay alive, begin again
block      calls that are alike and travel as one record
replies    REPLY records for calls that ended without the model's word

Each machine has `wake_at()`, so a shell needs one timer, and `check()`, which asserts its invariants.
"""
