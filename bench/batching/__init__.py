"""What batching costs and gains at every load: `python -m bench.batching`.

__main__.py   the command: measures curves, judges the policies in virtual time, runs them live, draws
curves.py     two real models and what a batch of each costs on this machine
virtual.py    the product's batcher in virtual time, with a measured curve for an engine
live.py       the same loads on a gateway and a worker
"""
