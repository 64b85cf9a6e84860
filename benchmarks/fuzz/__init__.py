"""Damaged inputs for every reader: see `python -m benchmarks.fuzz --help` and docs/reliability.md."""
