"""How long `ponder --help` and `ponder doctor` take, beside the aims of 0.5 s and 5 s.

Run from the project's root: `python -m benchmarks.start_up [--repeats 5] [--json FILE]`

Reported are medians of the clock and of the processors (user, system); the first run, which reads files into
memory, is not counted. The ratio is the aim over the processors' time: above 1 the aim is met.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

AIMS = {"--help": 0.5, "doctor": 5.0}
"""Seconds."""


def spent(arguments: list[str]) -> tuple[float, float]:
    """Seconds of the clock and of the processors."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "ponder_cli", *arguments], check=True, capture_output=True)
    clock, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    results = {}
    for name, aim in AIMS.items():
        rows = [spent([name]) for _ in range(options.repeats + 1)][1:]
        clock, processors = (median(column) for column in zip(*rows, strict=True))
        results[f"ponder {name}"] = {
            "aim_seconds": aim,
            "clock_seconds": clock,
            "processor_seconds": processors,
            "ratio": aim / processors,
        }
        print(f"ponder {name}: {clock:.2f} s, {processors:.2f} s of the processors (aim {aim} s)", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
