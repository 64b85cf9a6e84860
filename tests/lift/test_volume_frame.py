"""Frames of volumes: a range is placed as its corners say, and one that equals the cube gives the same."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from ponderv2.geometry.cameras import project
from ponderv2.geometry.features import PointFeatures
from ponderv2.geometry.transforms import transform_points
from ponderv2.lift.config import CubeFrameConfig, DensifyConfig, RangeFrameConfig
from ponderv2.lift.kinds import build_lift
from ponderv2.lift.volume_frame import volume_frame
from ponderv2.models.pretext import PretextModel
from tests.models.test_pretext_conditions import batch_of, config

RANGE = RangeFrameConfig(lower=(-50.0, -40.0, -5.0), upper=(50.0, 60.0, 3.0), cells=(20, 20, 4))


def test_the_corners_of_a_range_are_those_of_its_volume() -> None:
    frame = volume_frame(torch.rand(5, 3), torch.tensor([2, 5]), RANGE)
    corners = torch.tensor([RANGE.lower, RANGE.upper])
    for scene in (0, 1):
        placed = frame.to_volume(corners, torch.full((2,), scene))
        torch.testing.assert_close(placed[0].double(), frame.lower[scene])
        torch.testing.assert_close(placed[1].double(), frame.upper[scene])
        torch.testing.assert_close(transform_points(frame.world_to_volume[scene], corners), placed)


def test_a_range_needs_no_points_and_leaves_out_those_beyond_it() -> None:
    coord = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 9.0], [49.0, 59.0, 2.9]])
    frame = volume_frame(coord, torch.tensor([0, 3]), RANGE)
    volume = build_lift(DensifyConfig())(PointFeatures(torch.ones(3, 1), coord, torch.tensor([0, 3])), frame)
    assert volume.shape == (2, 4, 20, 20) and len(volume.rows) == 2
    dense = volume.dense()[1, 0]
    assert dense[3, 19, 19] == 1 and dense[2, 8, 10] == 1  # (z, y, x) of 2 m, 5 m and 5 m


def test_a_range_without_a_volume_is_refused() -> None:
    with pytest.raises(ValidationError, match="below upper"):
        RangeFrameConfig(lower=(0.0, 0.0, 0.0), upper=(1.0, 0.0, 1.0), cells=(2, 2, 2))


def test_cameras_see_a_point_of_the_volume_where_they_saw_it_in_the_scene(rng: torch.Generator) -> None:
    coord = torch.rand(6, 3, generator=rng)
    frame = volume_frame(coord, torch.tensor([6]), CubeFrameConfig())
    world_to_camera = torch.eye(4)
    world_to_camera[:3, 3] = torch.tensor([-0.5, -0.5, 3.0])
    intrinsics = torch.tensor([[50.0, 0, 20], [0, 50.0, 20], [0, 0, 1]]).expand(6, 3, 3)
    zero = torch.zeros(6, dtype=torch.long)
    moved = frame.cameras(world_to_camera[None], zero[:1])[0]
    seen = project(transform_points(world_to_camera, coord), intrinsics)[0]
    found = project(transform_points(moved, frame.to_volume(coord, zero)), intrinsics)[0]
    torch.testing.assert_close(found, seen, atol=1e-4, rtol=0)


def test_a_range_that_equals_the_cube_gives_the_same_volume_and_images(rng: torch.Generator) -> None:
    batch = batch_of("ScanNet", rng).scenes()[0]
    lowest, highest = batch.coord.amin(0), batch.coord.amax(0)
    lower = (lowest + highest) / 2 - 1.0
    lower[2] = lowest[2]
    frames = (
        CubeFrameConfig(cube_size=2.0, cells=(8, 8, 8), padding=0.0),
        RangeFrameConfig(lower=tuple(lower.tolist()), upper=tuple((lower + 2.0).tolist()), cells=(8, 8, 8)),
    )
    torch.manual_seed(0)
    models = [PretextModel(config().model_copy(update={"frame": frame})) for frame in frames]
    models[1].load_state_dict(models[0].state_dict())
    volumes = [model.eval().build_volume(batch).volume for model in models]
    torch.testing.assert_close(volumes[0].lower, volumes[1].lower)
    torch.testing.assert_close(volumes[0].values, volumes[1].values)
    assert volumes[0].values.abs().sum() > 0
    steps = [model.train()(batch, torch.Generator().manual_seed(1)) for model in models]
    torch.testing.assert_close(steps[0].output.color, steps[1].output.color, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(steps[0].output.distance, steps[1].output.distance, atol=1e-4, rtol=1e-4)
