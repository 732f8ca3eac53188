"""The client's machine: calls pending at one or more gateways.

machine    calls in, outcomes out
call       what it waits for: blocks of calls, and questions
pending    all of it, until it has ended
codec      arrays to a request's body, and a reply's body to arrays
sessions   its gateways: greeting, choosing, leaving, and how long none could be reached
repeats    calls that were refused and are asked again after a pause
"""
