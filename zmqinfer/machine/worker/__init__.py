"""The worker's machine: batches from requests, replies from what the engines made of them.

machine    sessions with gateways, batches, and the replies
served     one of its models: what waits for it, what it runs, what it has earned
task       one request in its hands, and the batch it runs in
workload   all of them, from REQUEST to REPLY
twins      requests that it knows already, by their ids
"""
