"""A line of the fault table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What a fault did, how often, and what was to happen."""

    row: str
    fault: str
    injected: int
    """How often the fault was brought about."""
    outcome: str
    lost: int
    """Promises that were not kept; must be 0."""
    target: str
