"""The figures of docs/RELIABILITY.md, measured on real processes: `./run.sh promises`.

__main__    the command, and its table
row         one figure: what is asked, what was measured, and what does not hold
witness     a model that writes down which call ran where and when, and how that is read
cluster     gateways and workers with that model, and what they say of themselves
load        calls at a steady rate, each answer checked
workers     a worker killed, stopped, long in a batch, on a busy machine
gateways    a gateway stopped, killed, and greeted by a thousand clients at once
overload    more calls than the workers can take
"""
