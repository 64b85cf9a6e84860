"""Settings of the S3DIS reader. Never imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from ponderv2.datasets.settings import DatasetSettings


class S3disConfig(DatasetSettings):
    """S3DIS (Stanford3dDataset_v1.2), with the images and meshes of 2D-3D-S where they are given."""

    pretrain_preset: ClassVar[str | None] = "s3dis"
    finetune_preset: ClassVar[str | None] = "s3dis_semantic_scratch"

    kind: Literal["s3dis"] = "s3dis"
    path: Path = Path()
    """The folder with Area_1 .. Area_6, or a folder that holds it."""
    noxyz: Path | None = None
    """The folder with area_1 .. area_6 of 2D-3D-S (noXYZ archives), for images and normals."""
    areas: tuple[str, ...] = ("Area_1", "Area_2", "Area_3", "Area_4", "Area_5", "Area_6")
    """Areas that are prepared, those of them that are there."""
    align: bool = True
    """Rotate each room by the angle of its Area_k_alignmentAngle.txt, so that its walls follow the axes.

    The published preparation turns rooms only when asked to, but the prepared archive that its authors
    offer, and that published results were trained on, is turned.
    """
    normals: Literal["auto", "mesh", "estimate"] = "auto"
    """auto = of the nearest face of the 2D-3D-S mesh where there is one, else estimated from the points."""
    frames: bool = True
    """Read the images of 2D-3D-S, where `noxyz` is given."""
    stride: PositiveInt = 1
    """Every stride-th image of a room."""
    max_frames: PositiveInt | None = None
    """At most this many images of a room, evenly spread."""
    max_image_size: PositiveInt | None = None
    """Longest side of the prepared images, pixels."""
    near: PositiveFloat = 0.1
    """Metres: depth farther from all points of the room belongs to other rooms and is left out."""
    min_valid: float = Field(default=0.25, ge=0.0, le=1.0)
    """Images with a smaller share of usable depth are left out."""
