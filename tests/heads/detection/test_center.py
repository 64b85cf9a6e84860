"""The CenterPoint head against slow twins, closed forms and boxes that it must find again."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.detections import Detections
from ponderv2.geometry.features import PointFeatures
from ponderv2.geometry.volumes import FeatureVolume
from ponderv2.heads.detection.center.config import CenterHeadConfig, CircleNmsConfig
from ponderv2.heads.detection.center.head import (
    CenterHead,
    CenterOutputs,
    GroupMaps,
    boxes_of_code,
    center_focal_loss,
    plane_of,
)
from ponderv2.heads.detection.center.targets import Plane, centers_of, gaussian_radius, heat_map

CLASSES = ("car", "truck", "pedestrian")
PLANE = Plane((-12.0, -9.0), (0.6, 0.5), columns=40, rows=36)
GROUPS = (("car", "truck"), ("pedestrian",))


def random_boxes(n: int, seed: int) -> Boxes:
    """Some of them beyond the plane, some at its border, some of no class."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(columns: int) -> torch.Tensor:
        return torch.rand(n, columns, generator=generator)

    velocity = torch.cat([4.0 * uniform(2) - 2.0, torch.zeros(n, 1)], dim=1)
    velocity[::3] = torch.nan
    return Boxes(
        center=(uniform(3) * 2 - 1) * torch.tensor([14.0, 11.0, 1.0]),
        size=0.4 + uniform(3) * torch.tensor([5.0, 2.0, 2.0]),
        yaw=(uniform(1)[:, 0] * 2 - 1) * math.pi,
        velocity=velocity,
        category=torch.randint(-1, 3, (n,), generator=generator),
        instance=torch.arange(n),
    )


def volume(n_scenes: int, channels: int = 4, seed: int = 0) -> FeatureVolume:
    generator = torch.Generator().manual_seed(seed)
    lower = torch.tensor([[*PLANE.lower, -2.0]]).repeat(n_scenes, 1)
    upper = torch.tensor([[12.0, 9.0, 2.0]]).repeat(n_scenes, 1)
    values = torch.randn(n_scenes, channels, 2, PLANE.rows, PLANE.columns, generator=generator)
    return FeatureVolume(values, lower, upper)


def small_head(**changes: object) -> CenterHead:
    settings = {"groups": GROUPS, "widths": (16, 24), "layers": (1, 1), "neck": 16, "shared": 16, **changes}
    torch.manual_seed(0)
    return CenterHead(CenterHeadConfig.model_validate(settings), 8, CLASSES)


def slow_radius(length: float, width: float, overlap: float) -> float:
    """The three quadratic equations, as in CornerNet."""
    b1, c1 = length + width, width * length * (1 - overlap) / (1 + overlap)
    r1 = (b1 + math.sqrt(b1**2 - 4 * c1)) / 2
    b2, c2 = 2 * (length + width), (1 - overlap) * width * length
    r2 = (b2 + math.sqrt(b2**2 - 4 * 4 * c2)) / 2
    a3, b3, c3 = 4 * overlap, -2 * overlap * (length + width), (overlap - 1) * width * length
    r3 = (b3 + math.sqrt(b3**2 - 4 * a3 * c3)) / 2
    return min(r1, r2, r3)


def slow_heat(boxes: Boxes, group: tuple[int, ...], plane: Plane) -> torch.Tensor:
    """Cell by cell."""
    found = torch.zeros(len(group), plane.rows, plane.columns)
    for number in range(len(boxes)):
        category = int(boxes.category[number])
        x, y = (float(one) for one in boxes.center[number, :2])
        column = math.floor((x - plane.lower[0]) / plane.cell[0])
        row = math.floor((y - plane.lower[1]) / plane.cell[1])
        if category not in group or not (0 <= column < plane.columns and 0 <= row < plane.rows):
            continue
        side = math.sqrt(plane.cell[0] * plane.cell[1])
        length, width = (float(one) / side for one in boxes.size[number, :2])
        radius = max(2, math.floor(slow_radius(length, width, 0.1)))
        sigma = (2 * radius + 1) / 6
        for r in range(max(0, row - radius), min(plane.rows, row + radius + 1)):
            for c in range(max(0, column - radius), min(plane.columns, column + radius + 1)):
                value = math.exp(-((r - row) ** 2 + (c - column) ** 2) / (2 * sigma**2))
                place = found[group.index(category), r]
                place[c] = max(float(place[c]), value)
    return found


def test_radius_of_a_car_is_the_least_one() -> None:
    """A box of 4 m x 2 m on cells of 0.6 m: the third root is 2.0 cells."""
    radius = gaussian_radius(torch.tensor([4.0 / 0.6]), torch.tensor([2.0 / 0.6]), 0.1, 2)
    assert radius.tolist() == [2]
    large = torch.tensor([30.0, 55.0, 80.0])
    found = gaussian_radius(large, large / 2, 0.1, 2)
    assert found.tolist() == [math.floor(slow_radius(one, one / 2, 0.1)) for one in large.tolist()]


def test_heat_maps_are_those_of_the_slow_way() -> None:
    scenes = [random_boxes(60, 0), Boxes.empty(), random_boxes(25, 1)]
    for group in ((0, 1), (2,)):
        centers = centers_of(scenes, group, PLANE, 0.1, 2)
        found = heat_map(centers, 3, len(group), PLANE)
        for number, boxes in enumerate(scenes):
            torch.testing.assert_close(found[number], slow_heat(boxes, group, PLANE), atol=2e-6, rtol=0)
        assert bool((found[1] == 0).all())


def test_perfect_outputs_are_the_true_boxes() -> None:
    head = small_head(min_score=0.3, nms=CircleNmsConfig(radii=(0.01, 0.01)))
    truth = random_boxes(40, 3)
    plane = plane_of(volume(1))
    assert plane.lower == pytest.approx(PLANE.lower) and plane.cell == pytest.approx(PLANE.cell)
    groups = []
    kept = torch.zeros(len(truth), dtype=torch.bool)
    for group in head.group_classes:
        centers = centers_of([truth], group, plane, 0.1, 2)
        code = torch.zeros(1, 10, plane.rows, plane.columns)
        code[0, :, centers.row, centers.column] = centers.code.nan_to_num().T
        heat = torch.full((1, len(group), plane.rows, plane.columns), -9.0)
        heat[0, centers.category, centers.row, centers.column] = 9.0
        groups.append(GroupMaps(heat, code))
        for number in range(len(truth)):
            inside = (truth.center[number, :2].abs() < torch.tensor([12.0, 9.0])).all()
            kept[number] |= bool(inside) and int(truth.category[number]) in group
    (found,) = head.decode(CenterOutputs(tuple(groups), plane))
    wanted = truth.take(kept)
    nearest = torch.cdist(wanted.center, found.boxes.center).argmin(dim=1)
    assert len(found) == len(wanted) == len(set(nearest.tolist())) > 10
    again = found.boxes.take(nearest)
    torch.testing.assert_close(again.center, wanted.center, atol=1e-4, rtol=0)
    torch.testing.assert_close(again.size, wanted.size, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.cos(again.yaw - wanted.yaw), torch.ones(len(wanted)))
    assert again.category.tolist() == wanted.category.tolist()


def test_focal_loss_by_hand() -> None:
    logits = torch.zeros(1, 1, 1, 3)
    target = torch.tensor([[[[1.0, 0.5, 0.0]]]])
    by_hand = 0.25 * math.log(2.0) * (1.0 + 0.5**4 + 1.0)
    assert float(center_focal_loss(logits, target)) == pytest.approx(by_hand)
    nothing = center_focal_loss(logits, torch.zeros_like(target))
    assert float(nothing) == pytest.approx(0.75 * math.log(2.0))


def test_unknown_velocities_are_not_learned() -> None:
    head = small_head()
    truth = replace(random_boxes(8, 5), category=torch.zeros(8, dtype=torch.long))
    outputs = head(volume(1))
    known = head.losses(outputs, [replace(truth, velocity=torch.zeros(8, 3))])["box"]
    unknown = head.losses(outputs, [replace(truth, velocity=torch.full((8, 3), torch.nan))])["box"]
    centers = centers_of([truth], (0, 1), outputs.plane, 0.1, 2)
    predicted = outputs.groups[0].code[0, 8:, centers.row, centers.column]
    by_hand = 0.25 * 0.2 * predicted.abs().sum() / len(centers.row)
    torch.testing.assert_close(known - unknown, by_hand)


def test_training_finds_the_boxes_of_two_scenes() -> None:
    # Boxes of the truth overlap here, so that only what is found twice is suppressed.
    head = small_head(nms=CircleNmsConfig(radii=(0.3, 0.3)))
    scenes = [random_boxes(9, 11), random_boxes(7, 12)]
    scenes = [one.take((one.center[:, :2].abs() < 8).all(dim=1) & (one.category >= 0)) for one in scenes]
    seen = volume(2, seed=4)
    optimiser = torch.optim.Adam(head.parameters(), 5e-3)
    head.train()
    for _ in range(100):
        optimiser.zero_grad()
        torch.stack(list(head.losses(head(seen), scenes).values())).sum().backward()
        optimiser.step()
    for found, truth in zip(head.decode(head(seen)), scenes, strict=True):
        assert _recall(found, truth) > 0.9


def _recall(found: Detections, truth: Boxes) -> float:
    distance = torch.cdist(truth.center, found.boxes.center)
    same = truth.category[:, None] == found.boxes.category
    return float(((distance < 0.3) & same).any(dim=1).float().mean())


def test_scenes_without_boxes_have_losses_with_gradients() -> None:
    head = small_head()
    beyond = replace(random_boxes(3, 0), center=torch.full((3, 3), 50.0))
    losses = head.losses(head(volume(2)), [Boxes.empty(), beyond])
    assert set(losses) == {"heat", "box"} and float(losses["box"].detach()) == 0.0
    torch.stack(list(losses.values())).sum().backward()
    assert all(one.grad is not None for one in head.parameters())


def test_scenes_of_a_batch_do_not_meet() -> None:
    head = small_head(min_score=0.02).eval()
    both = volume(2, seed=9)
    together = head.decode(head(both))
    for number in range(2):
        part = slice(number, number + 1)
        alone = FeatureVolume(both.values[part], both.lower[part], both.upper[part])
        (found,) = head.decode(head(alone))
        assert len(found) == len(together[number]) > 0
        torch.testing.assert_close(found.boxes.center, together[number].boxes.center, atol=1e-4, rtol=0)


def test_what_it_refuses() -> None:
    head = small_head()
    with pytest.raises(ValueError, match="reads a volume"):
        head(PointFeatures(torch.zeros(1, 8), torch.zeros(1, 3), torch.tensor([1])))
    with pytest.raises(ValueError, match="none of car"):
        CenterHead(CenterHeadConfig(groups=(("tram",),)), 8, CLASSES)
    with pytest.raises(ValueError, match="in one group"):
        CenterHeadConfig(groups=(("car",), ("car",)))
    moved = replace(volume(2), lower=torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
    with pytest.raises(ValueError, match="one range"):
        head(moved)


def test_boxes_without_velocity_say_so() -> None:
    boxes = boxes_of_code(torch.zeros(2, 8), torch.tensor([0, 1]), torch.tensor([2, 3]), PLANE)
    assert bool(boxes.velocity.isnan().all()) and boxes.category.tolist() == [0, 0]
