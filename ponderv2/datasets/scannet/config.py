"""Settings of the ScanNet reader."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ponderv2.datasets.settings import DatasetSettings


class ScannetConfig(DatasetSettings):
    """ScanNet v2 as it is downloaded: meshes, RGB-D frames, semantic and instance labels."""

    pretrain_preset: ClassVar[str | None] = "scannet"
    finetune_preset: ClassVar[str | None] = "scannet_semantic_scratch"

    kind: Literal["scannet"] = "scannet"
    path: Path = Path("data/raw/scannet")
    """Folder with scans/ and scans_test/, one of these two, or one scene."""
    scenes: tuple[str, ...] = ()
    """Names or patterns (`scene00*`) of the scenes to prepare; by default all."""
    splits: Path | None = None
    """Folder of scannetv2_train.txt, _val.txt and _test.txt, where they are not near the data."""
    semantics: bool = True
    """False: no labels at all, and no label table is needed."""
    labels: Path | None = None
    """scannetv2-labels.combined.tsv, where it is not near the data."""
    label_field: Literal["segment20", "segment200"] = "segment20"
    """The classes that count as the usual ones, and that 2D labels are stored in; points get both."""
    axis_align: bool = False
    """Rotate points and cameras so that walls run along x and y; published models see unaligned scenes."""
    frames: bool = True
    """False: points only."""
    stride: PositiveInt = 20
    """Frames at least N recorded frames apart: of 30 a second neighbours show nearly the same, and all
    would be some 5 GB a scene."""
    max_frames: PositiveInt | None = None
    """At most this many frames, evenly spread."""
    holdout: NonNegativeInt = 0
    """Every n-th frame is held out for validation; 0 = none."""
    depth_min: NonNegativeFloat = 0.1
    """Metres; nearer measurements are dropped."""
    depth_max: PositiveFloat = 10.0
    """Metres; farther measurements are dropped."""
    max_image_size: PositiveInt | None = None
    """Longest side of the prepared images, pixels; by default that of the depth images."""
