"""The loops of the experiment on joint training, on a room that is a box of points."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from experiments.gain_learning import (
    FinetuneSettings,
    PretrainSettings,
    evaluate,
    finetune,
    fit_linear,
    pretrain,
    with_few_points,
)
from experiments.gain_rooms import CropSettings, Room, moved, random_turn, surface_points, training_piece
from ponderv2.geometry.cameras import project
from ponderv2.renderer.config import ClassesConfig, RenderLossConfig

RAYS = CropSettings(n_rays=40)


@pytest.fixture(scope="module")
def room() -> Room:
    """Floor (class 0) and one wall (class 1), seen by one camera from above."""
    generator = torch.Generator().manual_seed(0)
    flat = torch.rand(1500, 2, generator=generator) * 3
    floor = torch.cat([flat, torch.zeros(1500, 1)], 1)
    wall = torch.cat([flat[:, :1], torch.zeros(1500, 1), flat[:, 1:]], 1)
    up, out = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 0.0])
    intrinsics = torch.tensor([[50.0, 0.0, 40.0], [0.0, 50.0, 30.0], [0.0, 0.0, 1.0]])
    down = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))  # looks along -z
    down[:3, 3] = -down[:3, :3] @ torch.tensor([1.5, 1.5, 2.5])
    hit = floor[:200]
    camera_points = hit @ down[:3, :3].T + down[:3, 3]
    pixel, depth = project(camera_points, intrinsics)
    segment = torch.cat([torch.zeros(1500), torch.ones(1500)]).long()
    return Room(
        name="box",
        coord=torch.cat([floor, wall]),
        color=torch.cat([torch.full((1500, 3), -0.5), torch.full((1500, 3), 0.5)]),
        normal=torch.cat([up.expand(1500, 3), out.expand(1500, 3)]),
        segment=segment,
        intrinsics=intrinsics[None],
        world_to_camera=down[None],
        view=torch.zeros(200, dtype=torch.long),
        pixel=pixel,
        pixel_color=torch.full((200, 3), 0.25),
        depth=depth,
        label=torch.zeros(200, dtype=torch.long),
        hit=hit,
    )


def test_surface_points_lie_where_the_pixels_were_projected_from(room: Room) -> None:
    intrinsics, pose = room.intrinsics[room.view], room.world_to_camera[room.view]
    torch.testing.assert_close(
        surface_points(room.pixel, room.depth, intrinsics, pose), room.hit, atol=1e-5, rtol=0
    )


def test_turned_room_shows_the_same_pixels(room: Room) -> None:
    turned = moved(room, random_turn(torch.Generator().manual_seed(3), scale=0.2))
    camera = turned.hit @ turned.world_to_camera[0, :3, :3].T + turned.world_to_camera[0, :3, 3]
    pixel, depth = project(camera, room.intrinsics[0])
    torch.testing.assert_close(pixel, room.pixel, atol=1e-3, rtol=0)
    torch.testing.assert_close(depth, room.depth, atol=1e-4, rtol=0)
    torch.testing.assert_close(turned.normal.norm(dim=1), torch.ones(3000))


def test_rays_of_a_piece_end_within_it(room: Room) -> None:
    settings = replace(RAYS, half_side=0.5, scale=0.0)
    piece = training_piece(room, settings, torch.Generator().manual_seed(0))
    assert piece.pixels is not None
    assert 0 < len(piece.pixels.view) < 40
    extent = piece.coord[:, :2].amax(0) - piece.coord[:, :2].amin(0)
    assert float(extent.max()) <= 1.0


def test_linear_classifier_separates_two_clusters() -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(200) % 2
    feature = torch.randn(200, 3, generator=generator) + 6.0 * label[:, None]
    weight, bias = fit_linear(feature, label, 2, 1e-4)
    assert torch.equal((feature @ weight.T + bias).argmax(1), label)


def test_few_points_keep_their_labels_and_more_contain_fewer(room: Room) -> None:
    few, more = with_few_points(room, 5, 1), with_few_points(room, 20, 1)
    assert int((few.segment >= 0).sum()) == 5
    assert bool((more.segment >= 0)[few.segment >= 0].all())
    assert torch.equal(few.segment[few.segment >= 0], room.segment[few.segment >= 0])


def test_a_few_steps_of_everything(room: Room) -> None:
    with_targets = replace(room, label=torch.arange(200) % 4)
    losses = RenderLossConfig(semantic=1.0, semantic_target=ClassesConfig())
    settings = PretrainSettings(crop=RAYS, n_pieces=1, n_targets=4, losses=losses, cells=(8, 8, 8))
    gates = []
    state = pretrain([with_targets], settings, 2, 0, "cpu", lambda step, *_: gates.append(step), (1,))
    assert gates == [1, 2]
    trained = finetune(state, [room], 2, FinetuneSettings(steps=3, n_pieces=1), 0, "cpu")
    assert 0.0 <= evaluate(trained, [room], 2, 0.15, "cpu") <= 1.0
