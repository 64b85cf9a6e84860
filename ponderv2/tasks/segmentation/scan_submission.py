"""Files for the lidar segmentation benchmarks: written, and checked against the published formats.

A zip archive with a file of numbers per scan, one number per point in the order of the scan.

nuScenes: `lidarseg/<split>/<token>_lidarseg.bin`, classes 1 to 16 as octets, named by the token of the scan
(not of the key frame), and `<split>/submission.json`. SemanticKITTI: `sequences/11/predictions/000000.label`,
ids of the data set as 32-bit numbers; the archive holds entries of its folders, too.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from ponderv2.datasets.lidar_files import FloatRows
from ponderv2.errors import OutputError
from ponderv2.io.files import write_bytes
from ponderv2.scenes.scene import Scene, Sweep
from ponderv2.tasks.segmentation.submission import open_submission

MOST_PROBLEMS = 20
META = {"use_camera": False, "use_lidar": True, "use_radar": False, "use_map": False, "use_external": False}
"""What nuScenes wants to know of a submission; `use_external`: of other data sets."""


@dataclass(frozen=True)
class ScanFormat:
    """How a benchmark wants its files."""

    dtype: str
    label_ids: tuple[int, ...]
    others: Mapping[str, bytes]
    """Further files of the archive."""


def nuscenes_format(split: str, label_ids: tuple[int, ...]) -> ScanFormat:
    """With the description of the submission."""
    meta = json.dumps({"meta": META}, indent=2).encode()
    return ScanFormat("u1", label_ids, {f"{split}/submission.json": meta})


def semantickitti_format(label_ids: tuple[int, ...]) -> ScanFormat:
    """Files of scans alone."""
    return ScanFormat("<u4", label_ids, {})


def nuscenes_member(scene: Scene, split: str) -> str:
    """Name of the file of a key frame. Raises OutputError where the token of its scan is not known."""
    own = own_scan(scene)
    if own is None:
        raise OutputError(
            f"scene '{scene.name}' was prepared without its scan, whose token names the file",
            fix="--data with the folder of nuScenes itself, or prepare it with --sweeps 1",
        )
    return f"lidarseg/{split}/{own.id}_lidarseg.bin"


def semantickitti_member(scene: Scene) -> str:
    """Name of the file of a scan, of `11/000000` or `test/11/000000`."""
    sequence, scan = scene.name.split("/")[-2:]
    return f"sequences/{sequence}/predictions/{scan}.label"


def own_scan(scene: Scene) -> Sweep | None:
    """The scan that the points of a scene are of; None where it is not stored."""
    return next((one for one in scene.sweeps if one.time == 0.0), None)


def n_measured(scene: Scene) -> int:
    """Points of the scan as it was published; those of the scene where that is not there."""
    own = own_scan(scene)
    if own is None or not isinstance(own.files, FloatRows):
        return len(scene.cloud)
    return len(own.files.rows(own.path))


def write_scans(path: Path, scans: Iterable[tuple[str, Int[ndarray, " point"]]], wanted: ScanFormat) -> Path:
    """Writes the archive whole or not at all; each scan comes with its name there and an id per point.

    Raises OutputError.
    """
    stream = io.BytesIO()
    folders: set[str] = set()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:

        def add(name: str, contents: bytes) -> None:
            for parent in reversed(PurePosixPath(name).parents[:-1]):
                if str(parent) not in folders:
                    folders.add(str(parent))
                    archive.writestr(f"{parent}/", b"")
            archive.writestr(name, contents)

        for name, contents in wanted.others.items():
            add(name, contents)
        for name, ids in scans:
            add(name, ids.astype(wanted.dtype).tobytes())
    write_bytes(path, stream.getvalue())
    return path


def check_scans(path: Path, n_points: Mapping[str, int], wanted: ScanFormat) -> tuple[str, ...]:
    """What the benchmark would refuse or count as wrong; empty where everything is as published.

    Args:
        path: The archive.
        n_points: Of the scan of every file that the benchmark expects.
        wanted: Its format.

    Raises OutputError where there is no archive.
    """
    with open_submission(path) as archive:
        names = archive.namelist()
        problems = _names(names, {*n_points, *wanted.others})
        for name in names:
            if name in n_points:
                problems += _numbers(name, archive.read(name), n_points[name], wanted)
            elif name in wanted.others and not _says_meta(archive.read(name)):
                problems.append(f"{name}: does not say whether {', '.join(META)}")
    return tuple(problems[:MOST_PROBLEMS])


def _names(names: list[str], expected: Collection[str]) -> list[str]:
    parents = {f"{parent}/" for name in expected for parent in PurePosixPath(name).parents[:-1]}
    problems = [f"{name}: occurs twice" for name in sorted({n for n in names if names.count(n) > 1})]
    problems += [f"{name}: not a file of this split" for name in sorted(set(names) - parents - {*expected})]
    problems += [f"{name}: is missing" for name in sorted({*expected} - set(names))]
    return problems + [f"{name}: the folder has no entry" for name in sorted(parents - set(names))]


def _numbers(name: str, contents: bytes, n_points: int, wanted: ScanFormat) -> list[str]:
    size = np.dtype(wanted.dtype).itemsize
    if len(contents) != n_points * size:
        return [f"{name}: {len(contents) / size:g} numbers, the scan has {n_points} points"]
    found = set(np.unique(np.frombuffer(contents, wanted.dtype)).tolist())
    unknown = sorted(found - set(wanted.label_ids))
    return [f"{name}: id {unknown[0]} is not one of the {len(wanted.label_ids)} classes"] if unknown else []


def _says_meta(contents: bytes) -> bool:
    try:
        meta = json.loads(contents)["meta"]
        return all(isinstance(meta[name], bool) for name in META)
    except (ValueError, KeyError, TypeError):
        return False
