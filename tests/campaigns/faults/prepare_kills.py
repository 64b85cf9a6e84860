"""`prepare` killed with SIGKILL at moments all over its run, then run again: what is left, and how quickly.

    python -m tests.campaigns.faults.prepare_kills FOLDER --source rgbd --kills 20     prints one JSON object

Every run of `prepare` is a process of its own.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.datasets import scannet_files
from tests.scenes import box_room

Files = dict[str, bytes]


def configuration(source: str, raw: Path, out: Path, n_scenes: int) -> Any:
    """Settings of a small run."""
    from ponderv2.checks.config import CheckConfig
    from ponderv2.datasets.generated.config import SyntheticConfig
    from ponderv2.datasets.rgbd.config import FusionConfig, RgbdConfig
    from ponderv2.datasets.scannet.config import ScannetConfig
    from ponderv2.workflows.config import PrepareConfig

    if source == "synthetic":
        made: Any = SyntheticConfig(rooms=n_scenes)
    elif source == "scannet":
        made = ScannetConfig(path=raw, stride=1)
    else:
        made = RgbdConfig(path=raw, up_axis="z", fusion=FusionConfig(voxel_size=0.08, truncation=0.3))
    return PrepareConfig(source=made, out=out, workers=1, check=CheckConfig(n_pixels=200))


def write_raw(source: str, raw: Path, n_scenes: int) -> None:
    """Small scenes; generated rooms need none."""
    taken = box_room.shots(4)
    for index in range(n_scenes):
        if source == "rgbd":
            box_room.write_7scenes(raw / f"room{index}", taken)
        elif source == "scannet":
            name = f"scene{index:04d}_00"
            scannet_files.write_scene(raw / "scans" / name)
            (raw / "scans" / name / f"{name}.sens").write_bytes(scannet_files.sens_bytes(taken))
    if source == "scannet":
        scannet_files.write_table(raw / "scannetv2-labels.combined.tsv")


def start(source: str, raw: Path, out: Path, n_scenes: int) -> subprocess.Popen[str]:
    """`prepare` in a process of its own. Not a copy of this one: Open3D's threads do not survive a fork."""
    command = [sys.executable, "-m", "tests.campaigns.faults.prepare_kills", str(raw), "--source", source]
    command += ["--one", str(out), "--scenes", str(n_scenes)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def to_the_end(child: subprocess.Popen[str]) -> tuple[float, int]:
    """Seconds that the preparation took, libraries being there, and the exit status."""
    said = child.communicate(timeout=600)[0]
    return (float(said.split()[-1]) if said else float("nan")), child.returncode


def kill_at(child: subprocess.Popen[str], folder: Path, n_files: int) -> int:
    """Waits until a folder has N files, kills, and returns the exit status: -9, or 0 if it was done."""
    while child.poll() is None:
        if sum(len(files) for _, _, files in os.walk(folder)) >= n_files:
            child.kill()
            break
        time.sleep(0.0005)
    child.communicate(timeout=600)
    return child.returncode


def one(source: str, raw: Path, out: Path, n_scenes: int) -> None:
    """Runs `prepare` and prints the seconds that it took."""
    from ponderv2.reconstruction.fusion import load_open3d
    from ponderv2.workflows import prepare

    load_open3d()
    for name in ("scipy.ndimage", "scipy.spatial", "torch"):
        importlib.import_module(name)  # late imports would be timed with every run
    started = time.perf_counter()
    prepare.run(configuration(source, raw, out, n_scenes))
    sys.stdout.write(f"{time.perf_counter() - started}\n")


def contents(root: Path) -> Files:
    """Everything but the report, which says what was skipped."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name != "prepare_report.json")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def campaign(source: str, folder: Path, kills: int, n_scenes: int = 3, seed: int = 0) -> dict[str, Any]:
    """An undisturbed run, the same again, and runs that are killed and repeated."""
    raw, straight = folder / "raw", folder / "straight"
    raw.mkdir(parents=True)
    write_raw(source, raw, n_scenes)
    whole, status = to_the_end(start(source, raw, straight, n_scenes))
    again, second = to_the_end(start(source, raw, straight, n_scenes))
    expected = contents(straight)
    rng = random.Random(seed)
    found: dict[str, Any] = {"source": source, "first_s": whole, "skipped_s": again, "kills": []}
    found["straight"] = [status, second, len(expected)]
    for index in range(kills):
        out = folder / f"killed{index}"
        n_files = max(1, int(len(expected) * (index + rng.random()) / kills))
        ended = kill_at(start(source, raw, out, n_scenes), out, n_files)
        scenes = [path.parent for path in out.glob("*/[!.]*/prepared.json")]
        whole_scenes = all(
            expected.get(str(file.relative_to(out))) == file.read_bytes()
            for scene in scenes
            for file in scene.rglob("*")
            if file.is_file()
        )
        _, finished = to_the_end(start(source, raw, out, n_scenes))
        found["kills"].append(
            {
                "at_file": n_files,
                "killed": ended == -signal.SIGKILL,
                "scenes_before": len(scenes),
                "whole_scenes_before": whole_scenes,
                "rerun_status": finished,
                "equal": contents(out) == expected,
            }
        )
    return found


def main() -> None:
    """Parse and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--source", choices=("rgbd", "scannet", "synthetic"), default="rgbd")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--scenes", type=int, default=3)
    parser.add_argument("--one", type=Path, help="only prepare FOLDER into this one")
    wanted = parser.parse_args()
    if wanted.one is not None:
        one(wanted.source, wanted.folder, wanted.one, wanted.scenes)
        return
    json.dump(campaign(wanted.source, wanted.folder, wanted.kills, wanted.scenes), sys.stdout)


if __name__ == "__main__":
    main()
