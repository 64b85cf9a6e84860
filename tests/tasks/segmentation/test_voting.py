"""Voting over views and fragments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ponderv2.data.config import LabelledDataConfig, VoxelConfig
from ponderv2.data.fragments import (
    FOUR_TURNS,
    PLAIN,
    TEN_VIEWS,
    THIRTEEN_VIEWS,
    TestView,
    fragments,
)
from ponderv2.data.scan_config import SweepsConfig
from ponderv2.scenes.batch import Batch
from ponderv2.scenes.scene import PointCloud, Scene, Sweep
from ponderv2.tasks.segmentation.predictions import halved_classes, vote
from tests.scenes.closed_form_room import room_cloud

CONFIG = LabelledDataConfig(voxel=VoxelConfig(size=0.5))


@pytest.fixture(scope="module")
def scene() -> Scene:
    cloud = room_cloud(500)
    labels = {name: torch.from_numpy(np.asarray(values)) for name, values in cloud.labels.items()}
    tensors = (torch.from_numpy(values).float() for values in (cloud.coord, cloud.color, cloud.normal))
    return Scene("room", PointCloud(*tensors, labels))


def by_color(batch: Batch) -> torch.Tensor:
    """Scores that depend on the point alone, so that every fragment says the same of it."""
    return batch.feature[:, :3] * 2.0


def test_fragments_cover_every_point_once_per_voxel(scene: Scene) -> None:
    pieces = list(fragments(scene, TestView(), CONFIG, "room"))
    assert len(torch.unique(torch.cat([piece.index for piece in pieces]))) == len(scene.cloud)
    for piece in pieces:
        assert len(torch.unique(piece.batch.grid_coord, dim=0)) == len(piece.index)
        torch.testing.assert_close(piece.batch.feature[:, 3:], scene.cloud.normal[piece.index])


def test_votes_of_point_wise_scores_are_their_softmax(scene: Scene) -> None:
    votes = vote(scene, by_color, CONFIG, "room", THIRTEEN_VIEWS)
    share = votes / votes.sum(dim=1, keepdim=True)
    expected = torch.softmax((scene.cloud.color / 127.5 - 1.0) * 2.0, dim=1)
    torch.testing.assert_close(share, expected, atol=1e-5, rtol=1e-5)
    # Every point is in one fragment of every view at least.
    assert float(votes.sum(dim=1).min()) >= len(THIRTEEN_VIEWS) - 1e-3


def test_prediction_sees_scenes_that_are_turned_and_scaled(scene: Scene) -> None:
    """Quarter turns swap the sides of the room; the scale is that of the view."""
    seen: list[tuple[float, float]] = []

    def watch(batch: Batch) -> torch.Tensor:
        extent = batch.coord.amax(dim=0) - batch.coord.amin(dim=0)
        seen.append((float(extent[0] / extent[1]), float(batch.units_per_metre[0])))
        return torch.zeros(len(batch.coord), 2)

    vote(scene, watch, CONFIG, "room", (TestView(0.5, 0.95),))
    ratios, units = zip(*seen, strict=True)
    assert ratios[0] == pytest.approx(3 / 4, rel=0.1) and units[0] == pytest.approx(0.95)


def test_published_sets_have_the_published_sizes() -> None:
    assert [len(views) for views in (PLAIN, FOUR_TURNS, TEN_VIEWS, THIRTEEN_VIEWS)] == [1, 4, 10, 13]
    assert len(set(THIRTEEN_VIEWS)) == 13 and len(set(TEN_VIEWS)) == 10


def test_no_view_is_refused(scene: Scene) -> None:
    with pytest.raises(ValueError, match="at least one view"):
        vote(scene, by_color, CONFIG, "room", ())


def test_half_voxels_share_the_vote_of_their_first_point(scene: Scene) -> None:
    """Against a loop: the votes of the first point of each half voxel, given to its other points."""
    turns = FOUR_TURNS[:2]
    config = CONFIG.model_copy(update={"centred": False})
    first: dict[tuple[int, ...], int] = {}
    cells = np.floor(scene.cloud.coord.double().numpy() / 0.25).astype(int)
    owner = [first.setdefault(tuple(cell), number) for number, cell in enumerate(cells.tolist())]
    kept = sorted(first.values())
    votes = vote(scene.take(torch.tensor(kept)), by_color, config, "room", turns)
    classes = dict(zip(kept, votes.argmax(dim=1).tolist(), strict=True))
    expected = [classes[one] for one in owner]

    found = halved_classes(scene, by_color, config, "room", turns)
    assert found.tolist() == expected and len(kept) < len(owner)


@pytest.mark.parametrize("close_in_scene", [False, True])
def test_points_of_sweeps_are_seen_and_get_no_votes(
    scene: Scene, tmp_path: Path, close_in_scene: bool
) -> None:
    np.savez(tmp_path / "0.npz", coord=scene.cloud.coord[:40].numpy() + 7.0)
    sweep = Sweep("0", "lidar", torch.eye(4), tmp_path / "0.npz", time=-0.1)
    sweeps = SweepsConfig(close_in_scene=close_in_scene)
    config = CONFIG.model_copy(update={"centred": False, "sweeps": sweeps, "fields": ("time",)})
    drive = replace(scene, sweeps=(sweep,))
    seen: set[float] = set()

    def watch(batch: Batch) -> torch.Tensor:
        seen.update(batch.feature[:, -1].unique().tolist())
        return by_color(batch)

    votes = vote(drive, watch, config, "room", FOUR_TURNS)
    alone = vote(scene, by_color, CONFIG.model_copy(update={"centred": False}), "room", FOUR_TURNS)
    assert torch.equal(votes.argmax(1), alone.argmax(1)) and len(votes) == len(scene.cloud)
    assert sorted(seen) == pytest.approx([0.0, 0.1])
    halved = halved_classes(drive, by_color, config, "room", FOUR_TURNS)
    assert len(halved) == len(scene.cloud)
