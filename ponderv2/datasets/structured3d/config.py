"""Settings of the Structured3D reader. Never imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ponderv2.datasets.settings import DatasetSettings


class Structured3dConfig(DatasetSettings):
    """Structured3D: its zip files, read in place, or a folder of their contents."""

    pretrain_preset: ClassVar[str | None] = "structured3d"
    finetune_preset: ClassVar[str | None] = "structured3d_semantic_scratch"

    kind: Literal["structured3d"] = "structured3d"
    path: Path = Path()
    """Folder of `Structured3D_*_NN.zip` files or of `scene_NNNNN` folders, or one zip file."""
    points: Literal["panorama", "perspective", "both"] = "both"
    """Views that the points are fused from. A room has few perspective views: alone they leave holes."""
    furniture: Literal["full", "simple", "empty"] = "full"
    """Rooms as furnished. `simple` exists as panorama only: such rooms have points but no frames."""
    lighting: Literal["rawlight", "coldlight", "warmlight"] = "rawlight"
    """Of the panoramas, and of the perspective views where they have it (else rawlight)."""
    voxel: PositiveFloat = 0.01
    """The cloud of a room keeps one point per cube of this size, metres."""
    min_cosine: NonNegativeFloat = Field(default=0.15, lt=1.0)
    """Pixels that see their surface at a flatter angle (|cos| of view and normal) give no point."""
    min_coverage: NonNegativeFloat = Field(default=0.25, le=1.0)
    """Perspective views with a smaller share of usable pixels are left out of the frames."""
    filter_frame_depth: bool = False
    """Also remove from the frames' depth the pixels that give no point, as the published loader does."""
    max_image_size: PositiveInt | None = None
    """Longest side of the prepared images, pixels; points are always made from the full size."""
    holdout: NonNegativeInt = 0
    """Every n-th perspective view of a room is held out for validation and not fused; 0 = none."""
    mirrored_as_published: bool = False
    """Reproduce the published data: a mirror image of the room (world (y, x, z)), cameras of determinant -1,
    angles of the pixels' corners in place of their centres. Normally the world is the dataset's own:
    right-handed, z up."""
    scenes: tuple[str, ...] = ()
    """Names or patterns (`scene_0000*`) of the scenes that are prepared; empty = all."""
