"""What the overload suite is made of; run it with ``python -m benchmarks.overload``.

Arrows point down only: scenarios -> bench -> load, server -> client -> http -> records;
report and plot know only what :mod:`~benchmarks.overload_suite.results` holds.
"""
