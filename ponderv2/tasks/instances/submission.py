"""Files for the instance task of the ScanNet benchmarks: written, and checked against the published format.

A zip archive with one text file per scene at its top. Each line of `<scene>.txt` is an instance:

    predicted_masks/<scene>_000.txt 5 0.9

the file of its mask (0 or 1 per line, one line per vertex of `<scene>_vh_clean_2.ply`, in their order), the
id of its class, and a confidence.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from ponderv2.evaluation.instances import PredictedInstances
from ponderv2.io.files import write_bytes
from ponderv2.tasks.segmentation.submission import open_submission

MASKS = "predicted_masks"
MOST_PROBLEMS = 20


def write_instance_submission(
    path: Path, scenes: Iterable[tuple[str, int, PredictedInstances]], label_ids: tuple[int, ...]
) -> Path:
    """Writes the archive whole or not at all; of each scene name, number of vertices and instances.

    `label_ids` are the ids of the classes on disk. Raises OutputError.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, n_vertices, instances in scenes:
            lines = []
            point, instance_of = instances.point.numpy(), instances.instance.numpy()
            for number, category in enumerate(instances.category.tolist()):
                mask = np.zeros(n_vertices, dtype=np.uint8)
                mask[point[instance_of == number]] = 1
                file = f"{MASKS}/{name}_{number:03d}.txt"
                archive.writestr(file, _mask_text(mask))
                lines.append(f"{file} {label_ids[category]} {float(instances.score[number]):.6f}\n")
            archive.writestr(f"{name}.txt", "".join(lines))
    write_bytes(path, stream.getvalue())
    return path


def _mask_text(mask: np.ndarray) -> bytes:
    text = np.full((len(mask), 2), ord("\n"), dtype=np.uint8)
    text[:, 0] = mask + ord("0")
    return text.tobytes()


def check_instance_submission(
    path: Path, n_vertices: Mapping[str, int], known_ids: Collection[int]
) -> tuple[str, ...]:
    """What the benchmark would refuse or count as wrong; empty where everything is as published.

    Args:
        path: The archive.
        n_vertices: Of every scene that the benchmark expects.
        known_ids: Of its classes, without those that have no instances.

    Raises OutputError where there is no archive.
    """
    problems: list[str] = []
    with open_submission(path) as archive:
        names = archive.namelist()
        problems += [f"{name}: occurs twice" for name in sorted({n for n in names if names.count(n) > 1})]
        top = {name for name in names if "/" not in name}
        expected = {f"{scene}.txt" for scene in n_vertices}
        problems += [f"{name}: not a scene of this split" for name in sorted(top - expected)]
        problems += [f"{name}: is missing" for name in sorted(expected - top)]
        used: list[str] = []
        for name in sorted(top & expected):
            found, masks = _scene(archive, name, n_vertices[name.removesuffix(".txt")], set(known_ids))
            problems += found
            used += masks
        shared = sorted({name for name in used if used.count(name) > 1})
        problems += [f"{name}: is the mask of two objects" for name in shared]
        problems += [f"{name}: no scene names it" for name in sorted(set(names) - top - set(used))]
    return tuple(problems[:MOST_PROBLEMS])


def _scene(
    archive: zipfile.ZipFile, name: str, n_vertices: int, known_ids: set[int]
) -> tuple[list[str], list[str]]:
    """Problems of one scene, and the masks that it names."""
    problems: list[str] = []
    masks: list[str] = []
    present = set(archive.namelist())
    for number, line in enumerate(archive.read(name).decode("utf-8", errors="replace").splitlines(), 1):
        where = f"{name}, line {number}"
        words = line.split(" ")
        if len(words) != 3:
            problems.append(f"{where}: expected 'mask id confidence', got '{line[:60]}'")
            continue
        problems += [f"{where}: {text}" for text in _line(words, known_ids)]
        masks.append(words[0])
        if words[0] not in present:
            problems.append(f"{where}: there is no file {words[0]}")
        else:
            problems += [f"{words[0]}: {text}" for text in _mask(archive.read(words[0]), n_vertices)]
    return problems, masks


def _line(words: list[str], known_ids: set[int]) -> list[str]:
    """Problems of path, class and confidence of one instance."""
    problems: list[str] = []
    path = PurePosixPath(words[0])
    if path.is_absolute() or ".." in path.parts:
        problems.append(f"the path {words[0]} leads out of the archive")
    if not words[1].isdecimal() or int(words[1]) not in known_ids:
        problems.append(f"{words[1]} is not the id of a class with objects")
    try:
        confidence = float(words[2])
    except ValueError:
        confidence = math.nan
    if not math.isfinite(confidence):
        problems.append(f"the confidence {words[2]} is not a number")
    return problems


def _mask(contents: bytes, n_vertices: int) -> list[str]:
    """Problems of one mask."""
    values = contents.split()
    if set(values) - {b"0", b"1"}:
        return ["a mask holds nothing but 0 and 1"]
    if len(values) != n_vertices:
        return [f"{len(values)} lines, the mesh has {n_vertices} vertices"]
    return [] if b"1" in values else ["the mask is empty"]
