"""`prepare` killed with SIGKILL at moments all over its run, then run again: what is left, and how quickly.

    python -m tests.faults.prepare_kills FOLDER --source rgbd --kills 20     prints one JSON object

Libraries are imported once; every run of `prepare` is a process of its own, copied from this one.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.scenes import box_room, scannet_files

Files = dict[str, bytes]


def configuration(source: str, raw: Path, out: Path) -> Any:
    """Settings of a small run."""
    from ponderv2.scenes.sources.config import CheckConfig, FusionConfig, RgbdConfig
    from ponderv2.scenes.sources.scannet_config import ScannetConfig
    from ponderv2.scenes.sources.synthetic_config import SyntheticConfig
    from ponderv2.workflows.configs import PrepareConfig

    if source == "synthetic":
        made: Any = SyntheticConfig(rooms=3)
    elif source == "scannet":
        made = ScannetConfig(path=raw, stride=1)
    else:
        made = RgbdConfig(path=raw, up="z", fusion=FusionConfig(voxel_size=0.08, truncation=0.3))
    return PrepareConfig(source=made, out=out, workers=1, check=CheckConfig(n_pixels=200))


def write_raw(source: str, raw: Path) -> None:
    """Three scenes."""
    taken = box_room.shots(4)
    for index in range(3):
        if source == "rgbd":
            box_room.write_7scenes(raw / f"room{index}", taken)
        elif source == "scannet":
            name = f"scene{index:04d}_00"
            scannet_files.write_scene(raw / "scans" / name)
            (raw / "scans" / name / f"{name}.sens").write_bytes(scannet_files.sens_bytes(taken))
    if source == "scannet":
        scannet_files.write_table(raw / "scannetv2-labels.combined.tsv")


def in_a_process(work: Callable[[], object], kill_at: tuple[Path, int] | None = None) -> tuple[float, int]:
    """Seconds and wait status of a copy of this process; `kill_at`: as soon as a folder has so many files."""
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    while kill_at is not None:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return time.perf_counter() - start, status
        if sum(len(files) for _, _, files in os.walk(kill_at[0])) >= kill_at[1]:
            os.kill(child, signal.SIGKILL)
            break
        time.sleep(0.0005)
    _, status = os.waitpid(child, 0)
    return time.perf_counter() - start, status


def contents(root: Path) -> Files:
    """Everything but the report, which says what was skipped."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name != "prepare_report.json")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def campaign(source: str, folder: Path, kills: int, seed: int = 0) -> dict[str, Any]:
    """An undisturbed run, the same again, and runs that are killed and repeated."""
    from ponderv2.workflows import prepare

    for name in ("open3d", "pandas", "scipy.ndimage", "scipy.spatial", "torch"):
        importlib.import_module(name)  # late imports would be timed with every run
    raw = folder / "raw"
    raw.mkdir(parents=True)
    write_raw(source, raw)

    def work(out: Path) -> Callable[[], object]:
        return lambda: prepare.run(configuration(source, raw, out))

    whole, status = in_a_process(work(folder / "straight"))
    again, second = in_a_process(work(folder / "straight"))
    expected = contents(folder / "straight")
    rng = random.Random(seed)
    found: dict[str, Any] = {"source": source, "first_s": whole, "skipped_s": again, "kills": []}
    found["straight"] = [status, second, len(expected)]
    for index in range(kills):
        out = folder / f"killed{index}"
        n_files = int(len(expected) * (index + rng.random()) / kills)
        _, ended = in_a_process(work(out), kill_at=(out, n_files))
        scenes = [path.parent for path in out.glob("*/[!.]*/prepared.json")]
        whole_scenes = all(
            expected.get(str(one.relative_to(out))) == one.read_bytes()
            for scene in scenes
            for one in scene.rglob("*")
            if one.is_file()
        )
        _, finished = in_a_process(work(out))
        one = {"at_file": n_files, "killed": os.WIFSIGNALED(ended), "scenes_before": len(scenes)}
        same = contents(out) == expected
        found["kills"].append(
            {**one, "whole_scenes_before": whole_scenes, "rerun_status": finished, "equal": same}
        )
    return found


def main() -> None:
    """Parse and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--source", choices=("rgbd", "scannet", "synthetic"), default="rgbd")
    parser.add_argument("--kills", type=int, default=20)
    wanted = parser.parse_args()
    json.dump(campaign(wanted.source, wanted.folder, wanted.kills), sys.stdout)


if __name__ == "__main__":
    main()
