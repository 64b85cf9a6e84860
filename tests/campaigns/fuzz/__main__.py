"""Feeds every reader with damaged files and says what went wrong.

    python -m tests.campaigns.fuzz                         every target, 30,000 inputs each
    python -m tests.campaigns.fuzz sens ply --inputs 5000  some of them
    python -m tests.campaigns.fuzz --seconds 60            time limit per target and engine
    python -m tests.campaigns.fuzz --json FILE             the table as a file

Each target runs in a process of its own with a limit of memory (64 MiB and twice the input beyond what it
needs for sound files) and of time (1 s of processor time an input). Opening a file for writing outside of the
target's folder, starting a process or a connection counts as a fault. Two engines take turns where atheris is
installed (pip install atheris): `plain` damages sound files knowing their format, `guided` keeps what reaches
new code. What goes wrong is kept in --out, one file per place; the exit status is 1 then.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

from tests.campaigns.fuzz.campaign import import_readers, run
from tests.campaigns.fuzz.targets import TARGETS

MOST_WORK = 20.0
"""Seconds of processor time on one input, after which a process is taken for hanging in compiled code."""
SILENCE = 300.0
"""The same in seconds of the clock, for a process that waits for ever."""
MOST_DEATHS = 5
GUIDED_SHARE = 3
"""One input of N is left to the guided engine, which is slower."""


def main() -> int:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.fuzz",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--inputs", type=int, default=30_000, help="per target")
    parser.add_argument("--seconds", type=float, default=600.0, help="per target and engine")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=("both", "plain", "guided"), default="both")
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"))
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    for name in wanted.targets:
        if name not in TARGETS:
            parser.error(f"no target '{name}'; there are: {', '.join(TARGETS)}")
    import_readers()
    rows = []
    for name in wanted.targets or TARGETS:
        row = _target(name, wanted)
        rows.append(row)
        print(
            f"{name:24} {row['inputs']:9,} inputs {row['seconds']:7.1f} s {len(row['findings'])} findings",
            flush=True,
        )
        for finding in row["findings"]:
            print(f"    {finding['kind']}: {finding['where']} ({finding['bytes']} bytes)", flush=True)
        if wanted.json:
            _write(wanted.json, rows, wanted)
    total, faults = sum(row["inputs"] for row in rows), sum(len(row["findings"]) for row in rows)
    print(f"{'total':24} {total:9,} inputs {sum(row['seconds'] for row in rows):7.1f} s {faults} findings")
    return 1 if faults else 0


def _target(name: str, wanted: argparse.Namespace) -> dict[str, Any]:
    """Both engines, one after the other."""
    with_guided = importlib.util.find_spec("atheris") is not None and wanted.engine != "plain"
    n_guided = (
        0 if not with_guided else wanted.inputs // GUIDED_SHARE if wanted.engine == "both" else wanted.inputs
    )
    row: dict[str, Any] = {"target": name, "inputs": 0, "guided": 0, "seconds": 0.0, "findings": []}
    for engine, count in (("plain", wanted.inputs - n_guided), ("guided", n_guided)):
        seed = wanted.seed
        for _ in range(MOST_DEATHS if count else 0):
            state = _process(name, engine, count, seed, wanted)
            row["inputs"] += state["inputs"]
            row["guided"] += state["inputs"] if engine == "guided" else 0
            row["seconds"] = round(row["seconds"] + state["seconds"], 1)
            known = {(one["kind"], one["where"]) for one in row["findings"]}
            row["findings"] += [one for one in state["findings"] if (one["kind"], one["where"]) not in known]
            count -= state["inputs"]
            seed += 1000
            if not state["died"] or count <= 0:
                break
    return row


def _process(name: str, engine: str, count: int, seed: int, wanted: argparse.Namespace) -> dict[str, Any]:
    """One process until it ends, dies or is silent; its death is a finding."""
    out = wanted.out / name.replace(" ", "-") / engine
    out.mkdir(parents=True, exist_ok=True)
    state_file = out / "state.json"
    state_file.unlink(missing_ok=True)
    options = (name, engine, count, wanted.seconds, seed, out)
    # A copy of this process has the readers in memory; instrumented ones have to be imported anew.
    kind = "fork" if engine == "plain" else "spawn"
    child = multiprocessing.get_context(kind).Process(target=run, args=options)
    child.start()
    hung = not _ended(child, out / "current")
    state = {"inputs": 0, "seconds": 0.0, "findings": [], "died": False}
    if state_file.is_file():
        state |= json.loads(state_file.read_text())
    if hung or child.exitcode != 0:
        where = "no answer" if hung else f"ended with {child.exitcode}"
        last = out / "current"
        data = last.read_bytes() if last.is_file() else b""
        (out / f"{'hung' if hung else 'died'}-{seed}.input").write_bytes(data)
        state["findings"] = [
            *state["findings"],
            {"kind": "died", "where": where, "bytes": len(data), "text": ""},
        ]
        state["died"] = True
    return state


def _ended(child: Any, current: Path) -> bool:
    """False for a process that had to be killed because it read one input without end."""
    last, since, work = -1, time.monotonic(), 0.0
    while True:
        child.join(timeout=1.0)
        if child.exitcode is not None:
            return True
        seen = current.stat().st_mtime_ns if current.exists() else 0
        if seen != last or not seen:
            last, since, work = seen, time.monotonic(), _work(child.pid)
        elif time.monotonic() - since > SILENCE or _work(child.pid) - work > MOST_WORK:
            child.kill()
            child.join()
            return False


def _work(process: int) -> float:
    """Seconds of processor time that a process has used."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _write(path: Path, rows: list[dict[str, Any]], wanted: argparse.Namespace) -> None:
    """The table so far, without tracebacks."""
    kept = [
        {**row, "findings": [{k: one[k] for k in ("kind", "where", "bytes")} for one in row["findings"]]}
        for row in rows
    ]
    total = {name: round(sum(row[name] for row in rows), 1) for name in ("inputs", "guided", "seconds")}
    command = "python -m tests.campaigns.fuzz"
    values = {"command": command, "seed": wanted.seed, "total": total, "targets": kept}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
