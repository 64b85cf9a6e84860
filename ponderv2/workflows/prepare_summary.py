"""Summary of the outcomes of all scenes, grouped by reason."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ponderv2.workflows.prepare import SceneOutcome

SPECIFIC = re.compile(r"[^\s]*[\d/\\][^\s]*")
"""Words with a digit or a slash: numbers, names of files and scenes."""
REPEATED = re.compile(r"…(?:[\s,;:]*…)+")


@dataclass(frozen=True)
class ReasonCount:
    """Scenes that share a status and a kind of reason."""

    status: str
    reason: str
    """Without what is particular to one scene; empty where there is none."""
    scenes: int
    example: str
    """One of the scenes."""


def summarise(outcomes: Iterable[SceneOutcome]) -> tuple[ReasonCount, ...]:
    """Counts by status (done, repaired, skipped, failed, checked, suspect) and reason, frequent ones first.

    A repaired scene counts once for each of its kinds of repair, a suspect one also for its suspicion.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        for status, reason in _reasons(outcome):
            found.setdefault((status, reason), []).append(outcome.key)
    counts = [
        ReasonCount(status, reason, len(keys), keys[0]) for (status, reason), keys in sorted(found.items())
    ]
    order = ("done", "repaired", "skipped", "checked", "failed", "suspect")
    return tuple(sorted(counts, key=lambda one: (order.index(one.status), -one.scenes)))


def _reasons(outcome: SceneOutcome) -> list[tuple[str, str]]:
    """Without doubles. Of a skipped scene not the repairs of the time when it was prepared."""
    why = outcome.why[:1] if outcome.status == "skipped" else outcome.why
    kinds = list(dict.fromkeys(kind_of(one) for one in why)) or [""]
    found: list[tuple[str, str]] = [(outcome.status, kind) for kind in kinds]
    if outcome.check is not None and outcome.check.suspect:
        found.append(("suspect", kind_of(outcome.check.likely_cause)))
    return found


def kind_of(reason: str) -> str:
    """The reason without numbers and names, so that reasons of a kind are equal."""
    return REPEATED.sub("…", SPECIFIC.sub("…", reason)).strip()
