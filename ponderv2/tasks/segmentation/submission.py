"""Files for the ScanNet benchmarks: written, and checked against the published format.

A zip archive with one text file per scene at its top, `<scene>.txt`: the id of a class in each line, one line
per vertex of `<scene>_vh_clean_2.ply`, in their order.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int
from torch import Tensor

from ponderv2.errors import OutputError
from ponderv2.io.files import write_bytes

SCENE_NAME = re.compile(r"scene\d{4}_\d{2}\.txt")
MOST_PROBLEMS = 20


def write_submission(path: Path, scenes: Iterable[tuple[str, Int[Tensor, " point"]]]) -> Path:
    """Writes the archive whole or not at all; each scene comes with the id of every vertex.

    Raises OutputError.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, ids in scenes:
            text = "\n".join(map(str, ids.tolist())) + "\n"
            archive.writestr(f"{name}.txt", text)
    write_bytes(path, stream.getvalue())
    return path


def open_submission(path: Path) -> zipfile.ZipFile:
    """The archive, to be closed by the caller. Raises OutputError where there is none."""
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise OutputError(f"{path} is not a zip archive: {error}") from error


def check_submission(
    path: Path, n_vertices: Mapping[str, int], known_ids: Collection[int]
) -> tuple[str, ...]:
    """What the benchmark would refuse or count as wrong; empty where everything is as published.

    Args:
        path: The archive.
        n_vertices: Of every scene that the benchmark expects.
        known_ids: Of its classes.

    Raises OutputError where there is no archive.
    """
    with open_submission(path) as archive:
        names = archive.namelist()
        problems = _names(names, n_vertices)
        for name in names:
            scene = name.removesuffix(".txt")
            if scene in n_vertices:
                problems += _lines(scene, archive.read(name), n_vertices[scene], set(known_ids))
    return tuple(problems[:MOST_PROBLEMS])


def _names(names: list[str], n_vertices: Mapping[str, int]) -> list[str]:
    expected = {f"{scene}.txt" for scene in n_vertices}
    problems = [f"{name}: a folder; the files must stand at the top" for name in names if "/" in name]
    problems += [f"{name}: occurs twice" for name in sorted({n for n in names if names.count(n) > 1})]
    for name in sorted(set(names) - expected):
        odd = "" if SCENE_NAME.fullmatch(name) else " and not the name of a scene"
        problems.append(f"{name}: not a scene of this split{odd}")
    return problems + [f"{name}: is missing" for name in sorted(expected - set(names))]


def _lines(scene: str, contents: bytes, n_vertices: int, known_ids: set[int]) -> list[str]:
    lines = contents.decode("ascii", errors="replace").splitlines()
    wrong = next((line for line in lines if not re.fullmatch(r"\d+", line)), None)
    if wrong is not None:
        return [f"{scene}.txt: '{wrong[:20]}' is not a whole number"]
    problems = []
    if len(lines) != n_vertices:
        problems.append(f"{scene}.txt: {len(lines)} lines, the mesh has {n_vertices} vertices")
    unknown = sorted(set(np.unique(np.array(lines, dtype=np.int64)).tolist()) - known_ids)
    if unknown:
        problems.append(f"{scene}.txt: id {unknown[0]} is not one of the {len(known_ids)} classes")
    return problems
