"""Faults of the input side, many times over: broken scenes, lying headers, hostile files, killed preparation.

    python -m tests.campaigns.soak_inputs                         all rows
    python -m tests.campaigns.soak_inputs R13 R20 --kills 20      some of them
    python -m tests.campaigns.soak_inputs --json FILE

Per row: fault, times injected, outcome, what was lost (must be 0), target. Exit status 1 where something
was lost. The rows are those of docs/reliability.md; the short form of each runs in tests/campaigns/faults/.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.campaigns.faults import bad_datasets, bad_recordings, hostile_files, lying_headers
from tests.campaigns.faults.outcome import Outcome
from tests.workflows.heard import Heard

SKIP_RATIO = 50.0
SKIPPED_SCENES = 12
"""Enough for the work of scenes to show beside that of a run."""
MOST_SECONDS, MOST_MB = 0.5, 64.0


def bad_scenes(folder: Path, wanted: argparse.Namespace) -> list[Outcome]:
    """R11: every kind of damage of every layout and dataset."""
    from tests.campaigns.faults.test_bad_scenes import check_outcome, prepared

    rows, target = [], "all named, others prepared, no traceback"
    for layout in bad_recordings.PARTS:
        broken = bad_recordings.write_all(folder / layout / "all", layout)
        result = prepared(folder / layout / "all", folder / layout / "out", layout)
        unnamed = check_outcome(result, broken)
        outcome = f"{len(broken) - len(unnamed)} named with a reason, the sound one prepared"
        rows.append(
            Outcome("R11", f"broken recordings, {layout}", len(broken), outcome, len(unnamed), target)
        )
    for name, dataset in bad_datasets.DATASETS.items():
        heard = Heard()
        done = bad_datasets.write_all(folder / "datasets" / name / "raw", dataset)
        result = bad_datasets.prepared(
            folder / "datasets" / name / "raw", folder / "datasets" / name / "out", dataset, heard
        )
        silent = bad_datasets.unnamed(result, done, dataset, heard)
        outcome = f"{len(done) - len(silent)} named with a reason, the sound one prepared"
        rows.append(Outcome("R11", f"broken scenes, {name}", len(done), outcome, len(silent), target))
    return rows


def headers(folder: Path, wanted: argparse.Namespace) -> list[Outcome]:
    """R13: in a process that can tell its highest memory."""
    words = [sys.executable, "-m", "tests.campaigns.faults.lying_headers", str(folder)]
    found = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    poor = [
        one for one in found
        if not one["refused"] or one["seconds"] > MOST_SECONDS or one["grown_mb"] > MOST_MB
    ]  # fmt: skip
    slowest, largest = (max(one[name] for one in found) for name in ("seconds", "grown_mb"))
    outcome = f"{len(found) - len(poor)} refused, at most {slowest * 1000:.0f} ms and {largest:.1f} MiB"
    target = f"refused within {MOST_SECONDS} s and {MOST_MB:.0f} MiB"
    return [Outcome("R13", "headers that lie", len(lying_headers.CASES), outcome, len(poor), target)]


def hostile(folder: Path, wanted: argparse.Namespace) -> list[Outcome]:
    """R14: no side effect, one clean error."""
    from typer.testing import CliRunner

    from ponder_cli.app import app
    from ponderv2.data.scene_folder import open_folder
    from ponderv2.errors import PonderError

    flag, harm, injected = folder / "flag", 0, 0

    def refused(read: Callable[[], object]) -> bool:
        try:
            read()
        except (PonderError, ValueError):
            return not flag.exists()
        return False

    for name, data in hostile_files.pickles(f"touch {flag}").items():
        path = folder / "hostile.pth"
        path.write_bytes(data)
        for words in hostile_files.commands_for(path, folder, folder / "out").values():
            status = CliRunner().invoke(app, [str(word) for word in words]).exit_code
            injected, harm = injected + 1, harm + (status != 2 or flag.exists())
        store = hostile_files.pickled_store(folder / name, data)
        injected, harm = injected + 1, harm + (not refused(lambda store=store: open_folder(store)))
    (folder / "bombs").mkdir()
    (folder / "escapes").mkdir()
    cases = {**hostile_files.bombs(folder / "bombs"), **hostile_files.escapes(folder / "escapes")}
    for read in cases.values():
        injected, harm = injected + 1, harm + (not refused(read))
    outcome = f"{injected - harm} refused with status 2 or one clean error, 0 commands run"
    return [
        Outcome(
            "R14", "hostile checkpoints, scenes, archives, bombs", injected, outcome, harm, "0 side effects"
        )
    ]


def killed(folder: Path, wanted: argparse.Namespace) -> list[Outcome]:
    """R20: SIGKILL all over a run, then the same command again."""
    rows = []
    for source in ("rgbd", "scannet", "synthetic"):
        kills = _prepared(folder / source, source, "--kills", str(wanted.kills))["kills"]
        again = _prepared(folder / f"{source}-again", source, "--kills", "0", "--scenes", str(SKIPPED_SCENES))
        ratio = again["first_s"] / max(again["skipped_s"], 1e-6)
        lost = sum(not (one["equal"] and one["whole_scenes_before"]) for one in kills)
        outcome = (
            f"{len(kills) - lost} reruns byte-equal, {SKIPPED_SCENES} finished scenes skipped "
            f"{ratio:.0f} times faster"
        )
        target = f"byte-equal, skipped at least {SKIP_RATIO:.0f} times faster"
        n_killed = sum(one["killed"] for one in kills)
        rows.append(Outcome("R20", f"prepare {source} killed", n_killed, outcome, lost, target))
    return rows


def _prepared(folder: Path, source: str, *words: str) -> dict[str, Any]:
    """In a process without Open3D's threads from before."""
    module = "tests.campaigns.faults.prepare_kills"
    command = [sys.executable, "-m", module, str(folder), "--source", source, *words]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


ROWS: dict[str, Callable[[Path, argparse.Namespace], list[Outcome]]] = {
    "R11": bad_scenes,
    "R13": headers,
    "R14": hostile,
    "R20": killed,
}


def main() -> int:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.soak_inputs", description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )  # fmt: skip
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--kills", type=int, default=20, help="per source of R20")
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    rows: list[Outcome] = []
    for name in wanted.rows or ROWS:
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            for row in ROWS[name](Path(folder), wanted):
                rows.append(row)
                print(
                    f"{row.row}  {row.fault}: {row.injected} times; {row.outcome}; lost {row.lost}",
                    flush=True,
                )
        if wanted.json:
            wanted.json.parent.mkdir(parents=True, exist_ok=True)
            wanted.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 1 if any(row.lost for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
