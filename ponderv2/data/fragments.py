"""Test-time augmentation: a scene rotated, scaled and mirrored, in fragments that hold every point."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Int
from torch import Tensor

from ponderv2.data.config import PointDataConfig
from ponderv2.data.preprocess import batch_of_points, clipped, whole_scene_shift
from ponderv2.data.voxelise import grid_cells, group_by_voxel, hash_cells
from ponderv2.geometry.transforms import flip_matrix, rotation_matrix, scale_matrix
from ponderv2.scenes.batch import Batch
from ponderv2.scenes.scene import Scene


@dataclass(frozen=True)
class TestView:
    """How a scene is augmented for one of several predictions."""

    half_turns: float = 0.0
    """Rotation about z, units of pi."""
    scale: float = 1.0
    flip: bool = False
    """Mirror x and y, which is half a turn."""

    __test__ = False

    def apply(self, scene: Scene) -> Scene:
        """The augmented scene."""
        scene = scene.moved(rotation_matrix(self.half_turns * math.pi, "z"))
        scene = scene.moved(scale_matrix(self.scale))
        return scene.moved(flip_matrix(True, True)) if self.flip else scene


PLAIN = (TestView(),)
FOUR_TURNS = tuple(TestView(turn) for turn in (0.0, 0.5, 1.0, 1.5))
THIRTEEN_VIEWS = (
    *(TestView(turn, scale) for scale in (1.0, 0.95, 1.05) for turn in (0.0, 0.5, 1.0, 1.5)),
    TestView(flip=True),
)
TEN_VIEWS = tuple(
    TestView(0.0, scale, flip) for flip in (False, True) for scale in (0.9, 0.95, 1.0, 1.05, 1.1)
)

TestSet = Literal["none", "fragments", "scannet", "scannet200", "s3dis", "nuscenes", "semantickitti"]
TEST_SETS: dict[TestSet, tuple[TestView, ...]] = {
    "none": (),
    "fragments": PLAIN,
    "scannet": THIRTEEN_VIEWS,
    "scannet200": FOUR_TURNS,
    "s3dis": TEN_VIEWS,
    "nuscenes": TEN_VIEWS,
    "semantickitti": FOUR_TURNS,
}
"""How often a scene is segmented. none: one point per voxel, once. fragments: every point, once.

The others are the published sets: scannet also for Structured3D and for S3DIS after joint training, s3dis for
S3DIS alone; nuscenes and semantickitti those of lidar segmentation.
"""
HALVED: frozenset[TestSet] = frozenset({"nuscenes", "semantickitti"})
"""Sets that first reduce a scene to one point per half a voxel, which its other points share (published)."""


@dataclass(frozen=True)
class Fragment:
    """One point of every voxel."""

    batch: Batch
    index: Int[Tensor, " point"]
    """Which points of the scene these are."""


def fragments(scene: Scene, view: TestView, config: PointDataConfig, condition: str) -> Iterator[Fragment]:
    """As many fragments as the fullest voxel has points; every point is in at least one of them."""
    scene = clipped(replace(scene, frames=()), config)
    scene = view.apply(scene.moved(whole_scene_shift(scene.cloud.coord, config)))
    cells, minimum = grid_cells(scene.cloud.coord, config.voxel.size)
    lower = minimum.double() * config.voxel.size
    for index in group_by_voxel(hash_cells(cells, config.voxel.order)).fragments():
        batch, _, _ = batch_of_points(scene, index, (cells[index], lower), config, (condition, "none"))
        yield Fragment(batch, index)
