"""Micro-benchmarks of the pure parts, with pytest-benchmark.

    .venv/bin/python -m pytest bench/micro
    .venv/bin/python -m bench.micro.commits main~5 main     two commits, in turns, as a ratio

They are no tests: the test run does not collect them, and nothing fails when one is slow.
"""
