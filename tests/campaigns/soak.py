"""The long campaign of faults: what `faults/` does once or twice, done often, and 10,000 steps in a row.

Run: python -m tests.campaigns.soak [--only R1,R7] [--json tests/campaigns/results/soak.json] [--steps 10000]

Real processes of the real program are killed, stopped and starved of memory and disk; generated rooms, CPU,
one thread each. Every line says how often a fault was brought about and how many promises were broken
(`lost`, to be 0). Rows that are run again replace what the file says of them. About an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from tests.campaigns.faults import disks, endurance, kills, memory, numbers, processes, scenes, signals
from tests.campaigns.faults.outcome import Outcome
from tests.campaigns.faults.presets import warm

RESULTS = Path(__file__).parent / "results" / "soak.json"
Scenario = Callable[[Path], Outcome | list[Outcome]]


def campaign(steps: int) -> list[tuple[str, Scenario]]:
    """Row of the table and what is done for it."""
    return [
        ("R1", lambda folder: kills.training_killed(folder, "pretrain", 50, 12)),
        ("R1", lambda folder: kills.training_killed(folder, "finetune", 50, 12)),
        ("R1", lambda folder: kills.evaluation_killed(folder, 50)),
        ("R2", kills.saves_killed),
        ("R3", disks.full_while_training),
        ("R3", disks.checkpoint_too_large),
        *(("R3", lambda folder, c=c: disks.full_for(folder, c)) for c in ("render", "reconstruct", "eval")),
        ("R4", disks.not_allowed),
        ("R4", scenes.read_only),
        ("R5", lambda folder: disks.damaged(folder, 200, flip=False)),
        ("R5", disks.resumed_from_previous),
        ("R6", lambda folder: disks.damaged(folder, 200, flip=True)),
        ("R7", lambda folder: signals.signalled(folder, 20)),
        ("R7", signals.ranks_signalled),
        ("R7", signals.interrupted_twice),
        ("R8", lambda folder: processes.order(folder, (0, 2, 4), (1, 1, 1))),
        ("R8", lambda folder: processes.order(folder, (0, 0, 0), (1, 2, 1))),
        *(
            ("R9", lambda folder, p=p, n=n: numbers.bad_once(folder, p, n))
            for p in numbers.PLACES
            for n in (1, 2)
        ),
        *(
            ("R9", lambda folder, p=p, n=n: numbers.bad_always(folder, p, n))
            for p in numbers.PLACES
            for n in (1, 2)
        ),
        *(("R10", lambda folder, f=f: memory.split(folder, f, 1)) for f in ("forward", "backward")),
        ("R10", memory.limited),
        ("R10", memory.never_enough),
        ("R15", lambda folder: processes.worker_killed(folder, 20)),
        ("R16", lambda folder: processes.rank_ends(folder, signal.SIGKILL, 0)),
        ("R16", lambda folder: processes.rank_ends(folder, signal.SIGKILL, 1)),
        ("R16", lambda folder: processes.restarted(folder, 10)),
        ("R16", lambda folder: processes.restarted(folder, 2, command=True)),
        ("R17", lambda folder: processes.rank_ends(folder, signal.SIGSTOP, 1)),
        ("R18", processes.two_runs),
        ("R19", lambda folder: processes.deterministic(folder, "pretrain")),
        ("R19", lambda folder: processes.deterministic(folder, "finetune")),
        ("R22", processes.clock_jumps),
        ("R23", lambda folder: endurance.long_run(folder, steps)),
        *(("scene", lambda folder, d=d: scenes.damaged_in_an_epoch(folder, d)) for d in scenes.DAMAGES),
        ("scene", scenes.same_choice),
        ("scene", scenes.too_many),
    ]


def main() -> None:
    """Runs the rows, prints each line as it is known, and writes all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="rows, with commas: R1,R7")
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--steps", type=int, default=10_000, help="of R23")
    arguments = parser.parse_args()
    os.environ.setdefault("PONDER_CACHE", tempfile.mkdtemp(prefix="ponder-soak-cache-"))
    torch.set_num_threads(1)
    warm()
    wanted = set(filter(None, arguments.only.split(",")))
    rows = [(row, scenario) for row, scenario in campaign(arguments.steps) if not wanted or row in wanted]
    found: list[dict[str, object]] = []
    for row, scenario in rows:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"ponder-soak-{row}-") as folder:
            outcomes = scenario(Path(folder))
        for outcome in outcomes if isinstance(outcomes, list) else [outcomes]:
            found.append(asdict(outcome) | {"seconds": round(time.monotonic() - begun, 1)})
            numbered = f"{outcome.row:>5}  lost {outcome.lost}  x{outcome.injected}"
            print(f"{numbered}  {outcome.fault}: {outcome.outcome}", flush=True)
    _write(arguments.json, found)
    raise SystemExit(int(any(line["lost"] for line in found)))


def _write(path: Path, found: list[dict[str, object]]) -> None:
    """Lines of rows that were not run stay."""
    done = {line["row"] for line in found}
    before = json.loads(path.read_text()) if path.exists() else []
    kept = [line for line in before if line["row"] not in done]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(sorted(kept + found, key=_number), indent=1) + "\n")


def _number(line: dict[str, object]) -> tuple[int, str]:
    row = str(line["row"])
    return (int(row[1:]) if row[1:].isdigit() else 99, row)


if __name__ == "__main__":
    main()
