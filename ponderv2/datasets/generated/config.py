"""Settings of generated rooms as a data set: those of the generator."""

from __future__ import annotations

from ponderv2.datasets.settings import DatasetSettings
from ponderv2.synthetic.config import RoomConfig


class SyntheticConfig(RoomConfig, DatasetSettings):
    """Generated rooms: furnished, with exact depth, normals, labels and mesh, and noisy scans of them."""
