"""Targets and boxes of FCAF3D against a textbook loop, round trips and what may not change."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ponderv2.geometry.box_overlap import box_rows, matched_box_iou
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.features import PointFeatures
from ponderv2.heads.detection.fcaf3d.box_coding import boxes_of, yaw_values
from ponderv2.heads.detection.fcaf3d.cells import pooled_cells
from ponderv2.heads.detection.fcaf3d.config import FCAF3DHeadConfig
from ponderv2.heads.detection.fcaf3d.network import best_of_groups
from ponderv2.heads.detection.fcaf3d.targets import face_centerness, location_targets
from tests.heads.detection.scenes import random_boxes


def grids(levels: int = 3, finest: float = 0.25) -> tuple[Tensor, Tensor]:
    """Centres of the cells of a room of 6 x 6 x 2 m, the finest level first."""
    location, level = [], []
    for number in range(levels):
        edge = finest * 2**number
        axes = [torch.arange(edge / 2, size, edge) for size in (6.0, 6.0, 2.0)]
        location.append(torch.cartesian_prod(*axes))
        level.append(torch.full((len(location[-1]),), number))
    return torch.cat(location), torch.cat(level)


def overlapping_boxes(rng: torch.Generator) -> Boxes:
    """Some stand in others; one is smaller than a cell."""
    boxes = random_boxes(rng)
    center = boxes.center.clone()
    center[1, :2] = center[0, :2]
    size = boxes.size.clone()
    size[2] = 0.05
    return Boxes(center, size, boxes.yaw, boxes.velocity, boxes.category, boxes.instance)


def textbook_targets(
    location: Tensor, level: Tensor, boxes: Boxes, config: FCAF3DHeadConfig
) -> tuple[list[int], list[float]]:
    """One box after the other, one location after the other."""
    n_levels = len(config.widths)
    claims: list[list[tuple[float, int, float]]] = [[] for _ in location]
    for b in range(len(boxes)):
        central = []
        for p in location.double():
            away = p - boxes.center[b].double()
            c, s = math.cos(float(boxes.yaw[b])), math.sin(float(boxes.yaw[b]))
            local = (away[0] * c + away[1] * s, away[1] * c - away[0] * s, away[2])
            faces = [
                (float(h / 2 + x), float(h / 2 - x))
                for h, x in zip(boxes.size[b].double(), local, strict=True)
            ]
            if min(min(pair) for pair in faces) <= 0:
                central.append(-1.0)
            else:
                central.append(math.sqrt(math.prod(min(pair) / max(pair) for pair in faces)))
        counts = [
            sum(c >= 0 for c, at in zip(central, level, strict=True) if at == n) for n in range(n_levels)
        ]
        below = [n for n in range(n_levels) if counts[n] < config.min_locations]
        own = n_levels - 1 if not below else max(below[0] - 1, 0)
        candidates = sorted((c for c, at in zip(central, level, strict=True) if at == own), reverse=True)
        bar = candidates[config.most_locations] if len(candidates) > config.most_locations else -1.0
        volume = float(boxes.size[b].double().prod())
        for i, c in enumerate(central):
            if c > max(bar, -1.0) and c >= 0 and level[i] == own:
                claims[i].append((volume, b, c))
    best = [min(claim) if claim else (0.0, -1, 0.0) for claim in claims]
    return [b for _, b, _ in best], [c for _, _, c in best]


@pytest.mark.parametrize(("at_least", "at_most"), [(27, 18), (5, 7), (1000, 3), (1, 10000)])
def test_targets_are_those_of_the_textbook_loop(rng, at_least, at_most):
    config = FCAF3DHeadConfig(widths=(4, 4, 4), min_locations=at_least, most_locations=at_most)
    boxes = overlapping_boxes(rng)
    location, level = grids(finest=0.4)
    found = location_targets(location, level, boxes, config)
    box, centerness = textbook_targets(location, level, boxes, config)
    assert found.box.tolist() == box
    torch.testing.assert_close(found.centerness, torch.tensor(centerness), atol=1e-5, rtol=1e-5)
    assert len(set(box)) > 3


def test_a_box_goes_to_the_coarsest_level_with_enough_locations():
    config = FCAF3DHeadConfig(widths=(4, 4, 4))
    location, level = grids()
    sizes = {0.9: 0, 1.6: 1, 5.9: 2, 0.2: 0}
    for edge, expected in sizes.items():
        rows = torch.tensor([[3.1, 3.1, 1.1, edge, edge, min(edge, 1.8), 0.0]])
        boxes = Boxes(
            rows[:, :3],
            rows[:, 3:6],
            rows[:, 6],
            torch.zeros(1, 3),
            torch.zeros(1).long(),
            torch.zeros(1).long(),
        )
        found = location_targets(location, level, boxes, config)
        assert level[found.box >= 0].unique().tolist() == [expected]


def test_levels_of_classes_take_the_place_of_the_count(rng):
    config = FCAF3DHeadConfig(widths=(4, 4, 4))
    boxes = random_boxes(rng)
    location, level = grids()
    found = location_targets(location, level, boxes, config, level_of_class=(2, 0, 1))
    positive = found.box >= 0
    wanted = torch.tensor([2, 0, 1])[boxes.category[found.box[positive]]]
    assert torch.equal(level[positive], wanted)
    assert positive.any()


def test_centreness_is_one_in_the_middle_and_zero_on_a_face(rng):
    boxes = random_boxes(rng)
    inside, centerness = face_centerness(boxes.center, boxes)
    torch.testing.assert_close(centerness.diagonal(), torch.ones(len(boxes)))
    corners = boxes.corners().mean(dim=1, keepdim=True) * 0.5 + boxes.corners() * 0.5
    inside, centerness = face_centerness(corners[:, 0], boxes)
    assert inside.diagonal().all()
    # Half the way to a corner: (1/4) / (3/4) on every axis.
    torch.testing.assert_close(centerness.diagonal(), torch.full((len(boxes),), (1 / 3) ** 1.5))
    assert not face_centerness(boxes.corners()[:, 0] * 1.001, boxes)[1].diagonal().any()


def test_no_boxes_leave_background(rng):
    location, level = grids()
    config = FCAF3DHeadConfig(widths=(4, 4, 4))
    found = location_targets(location, level, Boxes.empty(), config)
    assert found.box.unique().tolist() == [-1]
    none = location_targets(location[:0], level[:0], random_boxes(rng), config)
    assert len(none.box) == 0


def code_of(location: Tensor, rows: Tensor, turned: bool) -> Tensor:
    """What a perfect network predicts."""
    size = rows[:, 3:6].clone()
    if turned:
        size[:, :2] = size[:, :2].mean(dim=1, keepdim=True)
    away = rows[:, :3] - location
    faces = torch.stack([size / 2 - away, size / 2 + away], dim=2).flatten(1)
    return torch.cat([faces, yaw_values(rows[:, 3:6], rows[:, 6])], dim=1) if turned else faces


def test_a_turned_box_survives_the_two_values_of_its_yaw(rng):
    n = 200
    rows = torch.rand(n, 7, generator=rng, dtype=torch.float64)
    rows[:, 3:6] += 0.2
    rows[:, 6] = (rows[:, 6] - 0.5) * 4 * math.pi
    rows[-1, 3] = rows[-1, 4]  # a square: its yaw is lost
    location = rows[:, :3] + 0.1 * torch.randn(n, 3, generator=rng, dtype=torch.float64)
    found = boxes_of(location, code_of(location, rows, turned=True))
    same = matched_box_iou(found, rows)
    torch.testing.assert_close(same[:-1], torch.ones(n - 1, dtype=torch.float64))
    torch.testing.assert_close(found[:, :3], rows[:, :3])
    sides = rows[:, 3:5].sort(dim=1).values
    torch.testing.assert_close(found[:, 3:5].sort(dim=1).values, sides, atol=1e-6, rtol=0.0)
    assert (found[:, 3] >= found[:, 4] - 1e-5).all()
    # Modulo a quarter turn with the sides exchanged, and half a turn.
    long = rows[:, 3] > rows[:, 4]
    turn = torch.where(long, rows[:, 6], rows[:, 6] + math.pi / 2)[:-1]
    torch.testing.assert_close(torch.sin(2 * found[:-1, 6]), torch.sin(2 * turn))


def test_a_square_does_not_stop_the_gradient():
    code = torch.ones(3, 8)
    code[:, 6:] = torch.tensor([[0.0, 0.0], [0.0, -1.0e-30], [1.0e-20, 0.0]])
    code.requires_grad_()
    boxes = boxes_of(torch.zeros(3, 3), code)
    truth = torch.tensor([[0.1, 0.0, 0.0, 2.0, 1.5, 2.0, 0.3]]).expand(3, -1)
    matched_box_iou(boxes, truth).sum().backward()
    assert torch.isfinite(code.grad).all()
    torch.testing.assert_close(boxes[:, 3:6], torch.full((3, 3), 2.0))


def test_an_upright_box_survives_the_distances_to_its_faces(rng):
    rows = box_rows(random_boxes(rng, turned=False))
    location = rows[:, :3] + 0.1
    torch.testing.assert_close(boxes_of(location, code_of(location, rows, turned=False)), rows)


def test_cells_hold_the_mean_of_their_points(rng):
    coord = torch.rand(300, 3, generator=rng) * 3 - torch.tensor([1.5, 4.0, 0.2])
    feature = torch.randn(300, 2, generator=rng)
    offset = torch.tensor([100, 100, 300])
    pooled, level, grid = pooled_cells(PointFeatures(feature, coord, offset), 0.5, 3)
    members: dict[tuple[int, ...], list[int]] = {}
    for i, p in enumerate(coord):
        members.setdefault((0 if i < 100 else 2, *(math.floor(float(v) / 0.5) for v in p)), []).append(i)
    centers = grid.centers(level, 1)
    assert len(level) == len(members)
    for row in range(len(level)):
        scene = int(level.indices[row, 0])
        cell = tuple(round(float(v) / 0.5 - 0.5) for v in centers[row])
        torch.testing.assert_close(pooled[row], feature[members[scene, *cell]].mean(dim=0))
    assert all(e % 4 == 0 for e in level.extent)
    assert (grid.lower % 4 == 0).all()


def test_the_best_of_each_group_are_those_of_a_sort(rng):
    score, group = torch.rand(50, generator=rng).round(decimals=1), torch.randint(4, (50,), generator=rng)
    kept = best_of_groups(score, group, 5)
    for number in range(4):
        rows = (group == number).nonzero()[:, 0].tolist()
        best = sorted(rows, key=lambda row: (-float(score[row]), row))[:5]
        assert sorted(best) == [row for row in rows if kept[row]]
    assert best_of_groups(score[:0], group[:0], 5).shape == (0,)


def test_levels_of_classes_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="names level 2"):
        FCAF3DHeadConfig(widths=(4, 4), level_of_class={"bed": 0, "chair": 2})
    config = FCAF3DHeadConfig(widths=(4, 4), level_of_class={"bed": 1, "chair": 0})
    assert config.levels(("chair", "bed")) == (0, 1)
    with pytest.raises(ValueError, match="lacks the class 'lamp'"):
        config.levels(("chair", "lamp"))
    assert FCAF3DHeadConfig().levels(("chair",)) is None
