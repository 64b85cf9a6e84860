"""Runs benchmarks, each in a process of its own, and prints the ratios that they found in one table."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks import CURVES, ITEMS

RATIO_KEYS = ("ratio", "times_", "growth")
"""How keys begin that go into the table: times faster, or MiB."""


def ratios(found: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, float]]:
    """Every ratio in the JSON of a benchmark, with where it stands."""
    if isinstance(found, list):
        for number, entry in enumerate(found):
            yield from ratios(entry, (*place, _name(entry, number)))
    elif isinstance(found, dict):
        for key, value in found.items():
            if isinstance(value, int | float) and key.startswith(RATIO_KEYS):
                yield ", ".join([*place, "" if key == "ratio" else key]).strip(", "), float(value)
            else:
                yield from ratios(value, (*place, key))


def _name(entry: Any, number: int) -> str:
    """The name of an entry of a list: its texts and whole numbers."""
    if not isinstance(entry, dict):
        return str(number)
    parts = [str(value) for value in entry.values() if isinstance(value, str)]
    numbers = {key: v for key, v in entry.items() if type(v) is int and not key.startswith(RATIO_KEYS)}
    return " ".join([*parts, *(f"{key} {value}" for key, value in numbers.items())])


def run(name: str, quick: bool, folder: Path) -> list[tuple[str, float]]:
    """The ratios of one benchmark. Raises SystemExit when it fails."""
    path = folder / f"{name}.json"
    arguments = shlex.split(ITEMS[name].quick) if quick else []
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments, "--json", str(path)]
    if subprocess.run(command).returncode != 0:
        raise SystemExit(f"{name} failed: {shlex.join(command)}")
    return list(ratios(json.loads(path.read_text())))


def table(results: dict[str, list[tuple[str, float]]]) -> Table:
    """One row per ratio."""
    made = Table("benchmark", "against", "case", "ratio")
    for name, rows in results.items():
        for case, value in rows:
            made.add_row(name, escape(ITEMS[name].against), escape(case), f"{value:.2f}")
    return made


def listing() -> Table:
    """What there is."""
    made = Table("name", "measures", "against")
    for name, item in ITEMS.items():
        made.add_row(name, escape(item.what), escape(item.against))
    for name, what in CURVES.items():
        made.add_row(name, escape(what), f"(curve: python -m benchmarks.{name})")
    return made


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="by default all but the curves")
    parser.add_argument("--list", action="store_true", help="what there is")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes; not to be quoted")
    parser.add_argument("--json", type=Path, metavar="DIR", help="keep what each found as DIR/NAME.json")
    options = parser.parse_args(argv)
    if options.list:
        Console().print(listing())
        return
    unknown = [name for name in options.names if name not in ITEMS]
    if unknown:
        parser.error(f"no benchmark called {', '.join(unknown)}; known: {', '.join(ITEMS)}")
    with tempfile.TemporaryDirectory() as name:
        folder = options.json or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        chosen = options.names or list(ITEMS)
        Console().print(table({name: run(name, options.quick, folder) for name in chosen}))


if __name__ == "__main__":
    main()
