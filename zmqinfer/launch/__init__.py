"""Starting gateways and workers on this machine.

local        LocalCluster: in this process, for tests and notebooks
supervisor   child processes that are restarted when they die, for `zmqinfer up`
"""
