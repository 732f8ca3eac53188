"""Starting gateways and workers on this machine.

local        LocalCluster: in this process, for tests and notebooks
processes    ProcessCluster: in processes of their own, for benchmarks and tests
pulse        a sign of life from a child to the process that started it
child        one process after the other, with its pulse
terminal     whether SIGHUP asks for new processes, or the terminal has gone
supervisor   child processes that are restarted when they die, for `zmqinfer up`
"""
