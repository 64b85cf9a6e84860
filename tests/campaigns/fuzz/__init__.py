"""Damaged inputs for every reader: see `python -m tests.campaigns.fuzz --help` and docs/reliability.md."""
