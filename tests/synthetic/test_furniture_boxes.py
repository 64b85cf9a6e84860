"""Boxes of generated furniture: exact around surfaces, around the measured points, facing as they stand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ponderv2.datasets.generated.config import SyntheticConfig
from ponderv2.datasets.generated.reader import find
from ponderv2.scenes.prepared import SceneStream
from ponderv2.store.store import SceneStore
from ponderv2.synthetic.boxes import furniture_boxes
from ponderv2.synthetic.classes import BOX_CLASSES, CLASS_NAMES
from ponderv2.synthetic.room import Room, make_room

SETTINGS = SyntheticConfig(rooms=3, val_rooms=1, frames=8, width=64, height=48, noise=False)


def room_of(index: int) -> Room:
    return make_room(np.random.default_rng([SETTINGS.seed, index]), SETTINGS)


@pytest.mark.parametrize("index", [0, 1, 5])
def test_boxes_touch_the_surface_of_their_piece_on_all_six_sides(index: int) -> None:
    room = room_of(index)
    boxes = furniture_boxes(room, np.arange(len(room.things)))
    pieces = [number for number, thing in enumerate(room.things) if thing.name in BOX_CLASSES]
    assert boxes.instance.tolist() == pieces and len(pieces) > 3
    surface = room.surface()
    owner = surface.part_instance[surface.face_part]
    for number, center, size, yaw in zip(
        boxes.instance.tolist(),
        boxes.center.numpy(),
        boxes.size.numpy(),
        boxes.yaw.tolist(),
        strict=True,
    ):
        vertices = surface.vertices[np.unique(surface.faces[owner == number])] - center
        forward, left = (np.cos(yaw), np.sin(yaw), 0.0), (-np.sin(yaw), np.cos(yaw), 0.0)
        local = vertices @ np.array([forward, left, (0.0, 0.0, 1.0)]).T
        np.testing.assert_allclose(local.max(axis=0), size / 2, atol=1e-5)
        np.testing.assert_allclose(local.min(axis=0), -size / 2, atol=1e-5)


def test_sofas_and_chairs_have_their_backs_behind() -> None:
    """The highest vertices are those of the back, which is behind the centre as the box is heading."""
    n_seats = 0
    for index in range(4):
        room = room_of(index)
        boxes = furniture_boxes(room, np.arange(len(room.things)))
        surface = room.surface()
        owner = surface.part_instance[surface.face_part]
        for number, center, size, yaw, category in zip(
            boxes.instance.tolist(), boxes.center, boxes.size, boxes.yaw, boxes.category.tolist(), strict=True
        ):
            if BOX_CLASSES[category] not in ("chair", "sofa"):
                continue
            vertices = surface.vertices[np.unique(surface.faces[owner == number])]
            top = vertices[vertices[:, 2] > float(center[2] + size[2] * 0.4)]
            ahead = (top - center.numpy())[:, :2] @ np.array([np.cos(yaw), np.sin(yaw)])
            assert ahead.mean() < 0.0
            n_seats += 1
    assert n_seats >= 4


@pytest.mark.parametrize("noise", [False, True])
def test_stored_boxes_hold_the_points_of_their_instance(tmp_path: Path, noise: bool) -> None:
    plan = find(SETTINGS.model_copy(update={"noise": noise}))
    assert plan.info.box_classes == BOX_CLASSES
    store = SceneStore.create(tmp_path, plan.info)
    job = plan.scenes[0]
    contents = job.read()
    assert isinstance(contents, SceneStream)
    store.write(job.split, job.name, contents)
    scene = SceneStore.open(tmp_path).read(job.name, job.split)
    boxes, labels = scene.boxes, scene.cloud.labels
    assert boxes is not None and len(boxes) > 3
    instance = labels["instance"]
    # Points are means over cubes of the cloud; those of the noisy scan are off by their depth noise, too.
    allowance = 2 * (SETTINGS.voxel + (0.03 if noise else 0.0))
    inside = replace(boxes, size=boxes.size + allowance).contains(scene.cloud.coord)
    shares, counts = [], []
    for row, (number, category) in enumerate(zip(boxes.instance, boxes.category, strict=True)):
        mine = instance == number
        assert CLASS_NAMES[int(labels["segment"][mine][0])] == BOX_CLASSES[int(category)]
        shares.append(float(inside[row][mine].float().mean()))
        counts.append(int(mine.sum()))
    assert np.average(shares, weights=counts) >= 0.99 and min(counts) > 0
    assert noise or min(shares) >= 0.99
    furniture = torch.isin(labels["segment"], torch.tensor([CLASS_NAMES.index(one) for one in BOX_CLASSES]))
    assert set(instance[furniture].tolist()) == set(boxes.instance.tolist())


def test_what_no_point_shows_has_no_box() -> None:
    room = room_of(0)
    everything = furniture_boxes(room, np.arange(len(room.things)))
    first = furniture_boxes(room, everything.instance[:1].numpy().repeat(5))
    assert first.instance.tolist() == everything.instance[:1].tolist()
    assert len(furniture_boxes(room, np.zeros(0, np.int32))) == 0
