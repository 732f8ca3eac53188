"""Makes load, and says honestly what came of it.

    generator.py    makes the load and checks every answer; closed loop or open loop
    workload.py     what is asked of a model, and which answers are right
    inputs.py       inputs made up from a signature, or rows of a file
    live.py         a scenario on real processes
    measured.py     what came of a scenario, live or simulated
    statistics.py   exact figures of one round's latencies; spread, imbalance, stability
    summary.py      the figures of one load over its rounds
    results.py      what a benchmark found
    stored.py       its file, benchmark_results.json
    report.py       performance_report.txt, readable in a terminal
    plots.py        the three pictures, each drawn by a file of its own: latency_picture.py, node_picture.py and
                    comparison_picture.py, with what all of them have from canvas.py

A benchmark runs scenarios; a scenario is timed rounds of one load on one model, after
an uncounted warm-up. The presets of `zmqinfer bench` are closed loops, written as
requests a round / requests in flight:

    light 1000/20    medium 5000/50    heavy 10000/100

The figures of a scenario are those of its median round, with the spread over all of
them. Throughput counts right answers only, failures stand in the headline, and a
percentile that fewer than 10 samples lie beyond is not given at all.
"""
