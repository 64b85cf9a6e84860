"""Figures of the pre-training experiment: a file that grows, a table, and curves."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Key = tuple[str, ...]
"""What was measured, as words: kind, start, budget, seed."""
STEPS = 1500
"""Of pre-training, by the presets `rooms`."""


@dataclass(frozen=True)
class Figures:
    """Measured numbers with the commands that give them, in a JSON file that is written after each."""

    path: Path

    def read(self) -> dict[str, dict[str, Any]]:
        """All of them by name."""
        return json.loads(self.path.read_text()) if self.path.is_file() else {}

    def has(self, key: Key) -> bool:
        """Whether it was measured."""
        return " | ".join(key) in self.read()

    def value(self, key: Key) -> float:
        """A measured number."""
        return float(self.read()[" | ".join(key)]["value"])

    def put(self, key: Key, value: float, command: str) -> None:
        """Keeps a number."""
        found = self.read() | {" | ".join(key): {"value": value, "command": command}}
        text = json.dumps(dict(sorted(found.items())), indent=1)
        temporary = self.path.with_suffix(".new")
        temporary.write_text(text + "\n")
        temporary.replace(self.path)
        print(f"  {' | '.join(key)}: {value:.4f}", flush=True)

    def rows(self, kind: str) -> Iterator[tuple[list[str], float, str]]:
        """Words after the kind, number and command of all figures of a kind."""
        for name, entry in self.read().items():
            first, *words = name.split(" | ")
            if first == kind:
                yield words, float(entry["value"]), str(entry["command"])


def shown(values: list[float]) -> str:
    """Mean and sample deviation in per cent."""
    if not values:
        return "-"
    mean = f"{100 * statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {100 * statistics.stdev(values):.1f}"


def print_table(figures: Figures, where: str = "the test rooms") -> None:
    """Mean IoU by protocol, start and budget, and the commands of the first seed."""
    full = {name.partition(" | ")[0] for name in figures.read() if name.startswith("full")}
    for kind in ("linear", "knn", *sorted(full)):
        cells: dict[tuple[str, str], list[float]] = {}
        commands: dict[str, str] = {}
        for (start, budget, seed), value, command in figures.rows(kind):
            cells.setdefault((start, budget), []).append(value)
            if seed == "0":
                commands.setdefault(start, command)
        if not cells:
            continue
        budgets = sorted(
            {budget for _, budget in cells}, key=lambda one: (one.split()[1], int(one.split()[0]))
        )
        starts = list(dict.fromkeys(start for start, _ in cells))
        print(f"\n{kind}, mIoU on {where}\n")
        print("| start | " + " | ".join(budgets) + " |\n|" + " --- |" * (len(budgets) + 1))
        for start in starts:
            print(f"| {start} | " + " | ".join(shown(cells.get((start, b), [])) for b in budgets) + " |")
        for start in starts:
            print(f"    {start}: {commands.get(start, '-')}")


def write_plots(figures: Figures, folder: Path) -> None:
    """The linear probe against steps of pre-training, and scratch against steps of fine-tuning."""
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {"pre-training": {}, "fine-tuning": {}}
    for (start, steps), value, _ in figures.rows("curve"):
        curves["pre-training"].setdefault(start, []).append((int(steps), 100 * value))
    for start, points in curves["pre-training"].items():
        for steps, name in ((0, "random"), (STEPS, start)):
            key = ("linear", name, "20 points", "0")
            if figures.has(key):
                points.append((steps, 100 * figures.value(key)))
    for (start, budget, steps), value, _ in figures.rows("length"):
        curves["fine-tuning"].setdefault(f"{start}, {budget}", []).append((int(steps), 100 * value))
    if not any(curves.values()):
        return
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    for kind, lines in curves.items():
        if not lines:
            continue
        figure, axes = plt.subplots(figsize=(6, 4))
        for name, points in lines.items():
            axes.plot(*zip(*sorted(points), strict=True), marker="o", label=name)
        axes.set_xlabel(f"steps of {kind}")
        axes.set_ylabel("linear probe, mIoU" if kind == "pre-training" else "mIoU")
        axes.legend()
        figure.tight_layout()
        figure.savefig(folder / f"{kind}.png", dpi=120)
        plt.close(figure)
