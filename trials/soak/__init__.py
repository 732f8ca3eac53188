"""Load for many minutes while processes die, freeze, restart and come and go: `./run.sh soak`.

__main__    the command
processes   `zmqinfer up`, what it says, and what its processes take
load        calls at a steady rate, each answer checked
faults      which fault comes next, and the client that is killed
trial       load, faults and samples side by side
verdict     what has to hold of what was sampled
shown       what is printed, written and drawn
"""
