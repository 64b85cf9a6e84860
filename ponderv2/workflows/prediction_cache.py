"""Predicted classes of whole scenes, kept so that an interrupted evaluation goes on where it stopped.

The folder is named by the checkpoint's bytes, the settings and the version of the program; the file also by
the scene's points. Nothing that was computed under other conditions can be found again.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ponderv2.io.files import write_bytes
from ponderv2.scenes.scene import PointCloud
from ponderv2.version import __version__

DIGITS = 20


def digest_of_points(cloud: PointCloud) -> str:
    """SHA-256 of what a model sees of the points; their labels have no say."""
    digest = hashlib.sha256()
    for array in (cloud.coord, cloud.color, cloud.normal):
        digest.update(str(tuple(array.shape)).encode())
        digest.update(array.contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class PredictionCache:
    """A folder of predictions that were made under the same conditions."""

    folder: Path

    @staticmethod
    def of(root: Path, checkpoint: str, settings: dict[str, Any]) -> PredictionCache:
        """The folder for a checkpoint (its digest) and settings (plain values)."""
        conditions = {"checkpoint": checkpoint, "program": __version__, **settings}
        text = json.dumps(conditions, sort_keys=True, default=str)
        return PredictionCache(root / hashlib.sha256(text.encode()).hexdigest()[:DIGITS])

    def read(self, scene: str, cloud: PointCloud) -> Int[Tensor, " point"] | None:
        """Class of every point; None where nothing usable was kept."""
        try:
            classes = np.load(self._path(scene, cloud), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        fits = classes.shape == (len(cloud),) and classes.dtype.kind in "iu"
        return torch.from_numpy(classes.astype(np.int64)) if fits else None

    def write(self, scene: str, cloud: PointCloud, classes: Int[Tensor, " point"]) -> None:
        """Keeps the class of every point, whole or not at all. Raises OutputError."""
        stream = io.BytesIO()
        np.save(stream, classes.numpy().astype(np.int16))
        write_bytes(self._path(scene, cloud), stream.getvalue())

    def _path(self, scene: str, cloud: PointCloud) -> Path:
        return self.folder / f"{scene.replace('/', '_')}-{digest_of_points(cloud)[:DIGITS]}.npy"
