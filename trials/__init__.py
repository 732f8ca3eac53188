"""Long trials of real processes; short forms of them are in tests/trials.

chaos         `./run.sh chaos`: faults for gateways, workers and their network, under load
nodes         processes of zmqinfer, for all of these
town          their processes, and what happens to those in any network
proxied       their network on loopback: what goes wrong with links
proxy         the links, which are proxies
namespaces    their network of hosts: what goes wrong with cables
netns         the hosts, which are network namespaces
soak          `./run.sh soak`: twenty minutes of load with churn
fuzz_wire     `./run.sh fuzz`: broken messages for the decoder
fuzz_live     the same for a gateway
hostile       who sends them
promises      `./run.sh promises`: each figure of docs/RELIABILITY.md beside what is asked
"""
