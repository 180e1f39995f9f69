"""Benchmarks: suites of runs that answer one question each, and what they cost.

    python -m benchmarks run table1 --output DIR

Not part of the installed package: run from the root of the repository.
"""
