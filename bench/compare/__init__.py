"""zmqinfer, its floors and its peers side by side in one run: `./run.sh compare`.

__main__.py      the command: measures in turns, writes JSON, a table and pictures
figures.py       one measured cell, and medians over repeats
systems.py       what is compared: how each is started and loaded, and which process does what
zmq_client.py    the client of zmqinfer, a process of its own like all clients
environment.py   the peers' environments and wrk
cpu.py           CPU time of processes from /proc
table.py         the table in Markdown, with the ratios that are promised
plots.py         the pictures
"""
