"""Settings of the ScanNet++ reader."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import NonNegativeInt

from ponderv2.datasets.settings import DatasetSettings


class ScannetppConfig(DatasetSettings):
    """ScanNet++ as it is downloaded: laser scans with the 100 classes of its benchmark; no images."""

    pretrain_preset: ClassVar[str | None] = "indoor"
    finetune_preset: ClassVar[str | None] = "scannetpp_semantic_scratch"

    kind: Literal["scannetpp"] = "scannetpp"
    path: Path = Path("data/raw/scannetpp")
    """Folder with data/, splits/ and metadata/."""
    scenes: tuple[str, ...] = ()
    """Names or patterns of the scenes to prepare; by default all that are there."""
    surface_points: NonNegativeInt = 0
    """Points drawn uniformly on the surface, as the authors advise; 0 = the vertices of the mesh."""
    seed: NonNegativeInt = 0
    """Of those points; each scene has its own."""
