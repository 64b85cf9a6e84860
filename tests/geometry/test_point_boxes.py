"""Boxes around instances of points against a loop over them."""

from __future__ import annotations

from collections import Counter

import torch

from ponderv2.geometry.point_boxes import boxes_around_instances


def test_boxes_are_those_of_the_loop() -> None:
    rng = torch.Generator().manual_seed(1)
    coord = torch.rand(600, 3, generator=rng) * 8
    instance = torch.randint(-1, 12, (600,), generator=rng) * 7
    category = torch.randint(-1, 4, (600,), generator=rng)
    category[instance == 14] = -1
    expected = []
    for number in sorted(set(instance.tolist()) - {-7}):
        mine = instance == number
        counts = Counter(one for one in category[mine].tolist() if one >= 0)
        if counts:
            best = min(one for one, count in counts.items() if count == max(counts.values()))
            expected.append((number, best, coord[mine].amin(dim=0), coord[mine].amax(dim=0)))
    boxes = boxes_around_instances(coord, instance, category)
    assert len(boxes) == len(expected) == 11 and not boxes.yaw.any()
    for row, (number, best, low, high) in enumerate(expected):
        assert int(boxes.instance[row]) == number and int(boxes.category[row]) == best
        torch.testing.assert_close(boxes.center[row] - boxes.size[row] / 2, low)
        torch.testing.assert_close(boxes.center[row] + boxes.size[row] / 2, high)


def test_equally_frequent_categories_give_the_smaller() -> None:
    boxes = boxes_around_instances(
        torch.rand(4, 3), torch.zeros(4, dtype=torch.long), torch.tensor([3, 1, 1, 3])
    )
    assert boxes.category.tolist() == [1]


def test_no_points_and_points_of_no_instance_have_no_boxes() -> None:
    none = torch.zeros(0, dtype=torch.long)
    assert len(boxes_around_instances(torch.zeros(0, 3), none, none)) == 0
    outside = torch.full((5,), -1)
    assert len(boxes_around_instances(torch.rand(5, 3), outside, outside + 1)) == 0
    assert len(boxes_around_instances(torch.rand(5, 3), outside + 1, outside)) == 0


def test_a_single_point_has_a_box_without_extent() -> None:
    boxes = boxes_around_instances(torch.ones(1, 3), torch.tensor([4]), torch.tensor([2]))
    assert boxes.size.tolist() == [[0.0, 0.0, 0.0]] and boxes.center.tolist() == [[1.0, 1.0, 1.0]]
