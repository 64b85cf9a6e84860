"""Rough estimate of whether the scenes will fit on the disk, before any work is done."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ponderv2.datasets.reader import GeneratedScene, RawScene, SizedScene
from ponderv2.errors import OutputError

RESERVE = 64 * 2**20
"""Bytes that stay free: a disk filled to the last byte breaks other programs."""


@dataclass(frozen=True)
class SpaceEstimate:
    """Bytes that the jobs will write and that the disk has."""

    needed: int
    free: int
    n_scenes: int
    n_unknown: int
    """Jobs of unknown size; they count as the mean of the others."""

    @property
    def suffices(self) -> bool:
        """Whether the scenes fit."""
        return self.needed == 0 or self.needed + RESERVE <= self.free

    def __str__(self) -> str:
        guess = f" ({self.n_unknown} of them of unknown size)" if self.n_unknown else ""
        needed, free = readable(self.needed), readable(self.free)
        return f"{self.n_scenes} scenes{guess} need about {needed}, {free} are free"


def estimate_space(jobs: Sequence[RawScene | GeneratedScene], out: Path) -> SpaceEstimate:
    """Needed by the remaining jobs, and free on the disk of the output folder."""
    sizes = [job.estimated_bytes() for job in jobs if isinstance(job, SizedScene)]
    n_unknown = len(jobs) - len(sizes)
    mean = sum(sizes) / len(sizes) if sizes else 0.0
    free = shutil.disk_usage(existing_folder(out)).free
    return SpaceEstimate(int(sum(sizes) + n_unknown * mean), free, len(jobs), n_unknown)


def refuse_if_too_large(estimate: SpaceEstimate, out: Path) -> None:
    """Raises OutputError when the disk is too small for what will be written."""
    if not estimate.suffices:
        raise OutputError(
            f"not enough space in {out}: {estimate}",
            fix="free some space, choose another --out, or --set check_space=false to start all the same",
        )


def readable(n_bytes: int) -> str:
    """12.3 GB: decimal units, as disks are sold and `df -H` counts."""
    size = float(n_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000.0:
            return f"{size:.0f} {unit}" if size >= 100 or unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000.0
    return f"{size:.1f} TB"


def existing_folder(path: Path) -> Path:
    """The folder itself or the nearest one above that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
