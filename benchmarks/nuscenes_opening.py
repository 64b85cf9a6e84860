"""Opening nuScenes and reading samples, side by side with its development kit where that is installed.

`python -m benchmarks.nuscenes_opening FOLDER [--copies N]`: processor seconds and highest memory, each way in
a process of its own. `--copies` writes the tables again as often, with other tokens: how the figures grow.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

WAYS = {
    "ponder, index built": "ours",
    "ponder, index there": "ours",
    "nuscenes-devkit": "theirs",
}
PROGRAM = """
import json, sys, time
from pathlib import Path
root, way = Path(sys.argv[1]), sys.argv[2]
if way == "ours":
    from ponderv2.datasets.nuscenes.config import NuscenesConfig
    from ponderv2.datasets.nuscenes.reader import NuscenesDrives, open_versions
else:
    from nuscenes.nuscenes import NuScenes

def highest_kib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(one for one in lines if one.startswith("VmHWM")).split()[1])

before = highest_kib()
start, wall = time.process_time(), time.perf_counter()
if way == "ours":
    config = NuscenesConfig(path=root, sweeps=10)
    data, versions = open_versions(config)
    samples = versions[0].index.sample(versions[0].index.scenes[0], 0)
else:
    kit = NuScenes(version=next(root.glob("v1.0-*")).name, dataroot=str(root), verbose=False)
opened, opened_wall = time.process_time() - start, time.perf_counter() - wall
start = time.process_time()
if way == "ours":
    drives = NuscenesDrives(root, data, versions, config)
    first = versions[0].index.scenes[0]
    splits = [one for one in ("train", "val", "test") if any(n.startswith(first) for n in drives.names(one))]
    split = splits[0]
    names = [one for one in drives.names(split) if one.startswith(first)]
    start = time.process_time()
    for name in names:
        scene = drives.read(split, name, True).scene
        [one.camera for one in scene.frames]
    count = len(names)
else:
    from nuscenes.utils.data_classes import LidarPointCloud
    scene = min(kit.scene, key=lambda one: one["name"])
    token, count = scene["first_sample_token"], 0
    while token:
        sample = kit.get("sample", token)
        LidarPointCloud.from_file(kit.get_sample_data_path(sample["data"]["LIDAR_TOP"]))
        kit.get_boxes(sample["data"]["LIDAR_TOP"])
        [kit.box_velocity(one) for one in sample["anns"]]
        for channel in sample["data"]:
            kit.get_sample_data(sample["data"][channel])
        token, count = sample["next"], count + 1
read = (time.process_time() - start) / max(count, 1)
highest = highest_kib()
print(json.dumps({"open_seconds": opened, "open_wall": opened_wall, "sample_seconds": read, "samples": count,
                  "mebibytes": (highest - before) / 1024}))
"""


COMMON = ("category", "attribute", "visibility", "sensor", "calibrated_sensor", "map", "log")
"""Tables that all drives share."""


def copied(root: Path, copies: int, target: Path) -> Path:
    """A folder whose tables hold every record `copies` times, with tokens and scenes of their own."""
    tables = next(root.glob("v1.0-*"))
    (target / tables.name).mkdir(parents=True)
    for path in tables.glob("*.json"):
        if path.stem == "lidarseg":  # whose files the kit counts
            continue
        text = path.read_text()
        rows = json.loads(text)
        made = list(rows)
        for number in range(1, 1 if path.stem in COMMON else copies):
            made += [_renamed(row, number, path.stem) for row in rows]
        (target / tables.name / path.name).write_text(json.dumps(made, indent=0))
    for name in ("samples", "sweeps", "maps"):
        if (root / name).is_dir():
            (target / name).symlink_to((root / name).absolute())
    return target


def _renamed(row: dict, number: int, table: str) -> dict:
    """The record with other tokens; what is common to all drives stays."""
    own = ("token", "prev", "next", "scene_token", "sample_token", "ego_pose_token", "instance_token",
           "sample_data_token", "first_sample_token", "last_sample_token", "first_annotation_token",
           "last_annotation_token")  # fmt: skip
    made = {key: f"{number:04x}{value[4:]}" if key in own and value else value for key, value in row.items()}
    if table == "scene":
        made["name"] = f"scene-{1 + number * 40 + int(row['name'][-4:]):04d}"
    return made


def measured(root: Path, way: str, python: str, cache: Path) -> dict | None:
    """One way in a process of its own; None where its program is not installed."""
    import os

    environment = {**os.environ, "PONDER_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, "-c", PROGRAM, str(root), way], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        print(done.stderr[-600:], file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().split("\n")[-1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--devkit-python", default=sys.executable, help="interpreter with nuscenes-devkit")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root = (
            copied(wanted.folder, wanted.copies, Path(place) / "data") if wanted.copies > 1 else wanted.folder
        )
        tables = next(root.glob("v1.0-*"))
        size = sum(path.stat().st_size for path in tables.glob("*.json"))
        print(f"tables of {size / 1e6:.1f} MB")
        for label, way in WAYS.items():
            python = sys.executable if way == "ours" else wanted.devkit_python
            found = measured(root, way, python, Path(place) / "cache")
            if found is not None:
                print(
                    f"{label:22} opened in {found['open_seconds']:.2f} s CPU ({found['open_wall']:.2f} s), "
                    f"a sample {1000 * found['sample_seconds']:.1f} ms CPU, {found['mebibytes']:.0f} MiB more"
                )


if __name__ == "__main__":
    main()
