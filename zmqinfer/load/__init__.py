"""Makes load, and says honestly what came of it.

    generator.py    makes the load and checks every answer; closed loop or open loop
    statistics.py   exact figures of one round's latencies; spread, imbalance, stability
    results.py      what a benchmark found, and benchmark_results.json
    report.py       performance_report.txt, readable in a terminal
    plots.py        latency_distribution, node_distribution and performance_comparison (.png)

A benchmark runs scenarios; a scenario is timed rounds of one load on one model, after
an uncounted warm-up. The presets of `zmqinfer bench` are closed loops, written as
requests a round / requests in flight:

    light 1000/20    medium 5000/50    heavy 10000/100

The figures of a scenario are those of its median round, with the spread over all of
them. Throughput counts right answers only, failures stand in the headline, and a
percentile that fewer than 10 samples lie beyond is not given at all.
"""
