"""Heads of PointGroup: losses against loops over points, objects against a search over all pairs."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch
from torch import Tensor, nn

from ponderv2.heads.config import GroupingConfig
from ponderv2.heads.instances import (
    InstanceLosses,
    group_points,
    instance_centres,
    instance_losses,
    instance_targets,
    offset_head,
)


def test_objects_of_unknown_and_ignored_classes_are_not_looked_for() -> None:
    segment = torch.tensor([-1, 0, 1, 2, 3, 2])
    instance = torch.tensor([4, 0, 1, 7, 9, -1])
    assert instance_targets(segment, instance, (0, 1)).tolist() == [-1, -1, -1, 7, 9, -1]
    assert instance_targets(segment, instance, ()).tolist() == [-1, 0, 1, 7, 9, -1]


def test_centre_is_the_mean_of_the_points_of_an_object(rng: torch.Generator) -> None:
    coord = torch.randn(30, 3, generator=rng)
    instance = torch.randint(-1, 4, (30,), generator=rng) * 5
    centre = instance_centres(coord, instance)
    for i in range(30):
        same = [j for j in range(30) if instance[j] == instance[i]]
        expected = coord[i] if instance[i] < 0 else sum(coord[j] for j in same) / len(same)
        assert torch.allclose(centre[i], expected, atol=1e-6)


def textbook_losses(
    logits: Tensor, offset: Tensor, target: Tensor, segment: Tensor, inside: Tensor
) -> tuple[float, float, float]:
    """Point by point in double precision; norms are enlarged by 1e-8 as published."""
    entropy, distance, direction = [], [], []
    for i in range(len(segment)):
        if segment[i] >= 0:
            scores = logits[i].double()
            entropy.append(float(torch.logsumexp(scores, 0) - scores[segment[i]]))
        if inside[i]:
            own, true = offset[i].tolist(), target[i].tolist()
            distance.append(sum(abs(a - b) for a, b in zip(own, true, strict=True)))
            lengths = [math.sqrt(sum(x * x for x in vector)) + 1e-8 for vector in (own, true)]
            direction.append(-sum(a * b for a, b in zip(own, true, strict=True)) / (lengths[0] * lengths[1]))
    mean = [sum(values) / max(1, len(values)) for values in (entropy, distance, direction)]
    return mean[0], mean[1], mean[2]


def test_losses_match_the_loop_over_points(rng: torch.Generator) -> None:
    logits, offset, target = (torch.randn(40, n, generator=rng) for n in (5, 3, 3))
    segment = torch.randint(-1, 5, (40,), generator=rng)
    inside = torch.rand(40, generator=rng) < 0.6
    losses = instance_losses(logits, offset, target, segment, inside)
    expected = textbook_losses(logits, offset, target, segment, inside)
    assert [float(getattr(losses, term.name)) for term in fields(losses)] == pytest.approx(expected, abs=1e-5)
    assert float(losses.total()) == pytest.approx(sum(expected), abs=1e-5)


def test_perfect_offsets_have_direction_minus_one_and_distance_zero(rng: torch.Generator) -> None:
    target = torch.randn(9, 3, generator=rng)
    losses = instance_losses(
        torch.zeros(9, 2), target, target, torch.zeros(9, dtype=torch.long), torch.ones(9).bool()
    )
    assert float(losses.offset) == 0.0 and float(losses.direction) == pytest.approx(-1.0)
    assert float(losses.cross_entropy) == pytest.approx(math.log(2.0))


def test_without_labels_and_objects_every_term_and_gradient_is_zero() -> None:
    logits, offset = torch.ones(4, 3, requires_grad=True), torch.zeros(4, 3, requires_grad=True)
    nothing = torch.full((4,), -1)
    losses = instance_losses(logits, offset, torch.zeros(4, 3), nothing, nothing >= 0)
    assert float(losses.total().detach()) == 0.0
    losses.total().backward()
    assert logits.grad is not None and offset.grad is not None
    assert float(logits.grad.abs().sum() + offset.grad.abs().sum()) == 0.0


def test_every_term_reaches_the_total() -> None:
    names = [term.name for term in fields(InstanceLosses)]
    for name in names:
        values = {other: torch.tensor(3.0 if other == name else 0.0) for other in names}
        assert float(InstanceLosses(**values).total()) == 3.0


def test_a_label_without_a_score_is_named() -> None:
    with pytest.raises(ValueError, match="label 3 found, but the head has 3 classes"):
        instance_losses(
            torch.zeros(1, 3), torch.zeros(1, 3), torch.zeros(1, 3), torch.tensor([3]), torch.ones(1).bool()
        )


def test_offset_head_has_the_published_layers_and_constants() -> None:
    head = offset_head(16)
    shapes = {name: tuple(value.shape) for name, value in head.state_dict().items() if value.dim()}
    assert shapes == {
        **{"0.weight": (16, 16), "0.bias": (16,), "3.weight": (3, 16), "3.bias": (3,)},
        **{f"1.{name}": (16,) for name in ("weight", "bias", "running_mean", "running_var")},
    }
    norm = head[1]
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm) and (norm.eps, norm.momentum) == (1e-3, 0.01)


def textbook_objects(
    position: Tensor, logits: Tensor, scene: Tensor, ignored: tuple[int, ...], config: GroupingConfig
) -> list[tuple[list[int], int, float]]:
    """Points, class and score of each object: ball query over all pairs, then breadth first."""
    probability = torch.softmax(logits, dim=1)
    category = probability.argmax(dim=1).tolist()
    alive = [i for i in range(len(position)) if category[i] not in ignored]
    unseen, found = set(alive), []
    for start in alive:
        if start not in unseen:
            continue
        unseen.remove(start)
        points, waiting = [start], [start]
        while waiting:
            i = waiting.pop(0)
            for j in sorted(unseen):
                near = float((position[i].double() - position[j].double()).square().sum()) < config.radius**2
                if near and category[i] == category[j] and scene[i] == scene[j]:
                    unseen.remove(j)
                    points.append(j)
                    waiting.append(j)
        if len(points) >= config.min_linked and len(points) > config.more_than:
            score = float(probability[points, category[start]].double().mean())
            found.append((sorted(points), category[start], score))
    return found


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("ignored", [(), (0, 2)])
def test_objects_equal_those_of_the_textbook(seed: int, ignored: tuple[int, ...]) -> None:
    rng = torch.Generator().manual_seed(seed)
    centres = torch.rand(5, 3, generator=rng) * 12.0
    position = centres[torch.randint(5, (260,), generator=rng)] + 0.6 * torch.randn(260, 3, generator=rng)
    logits = 2.0 * torch.randn(260, 4, generator=rng)
    scene = (torch.arange(260) > 150).long()
    config = GroupingConfig(radius=1.2, min_linked=4, more_than=5)
    found = group_points(position, logits, scene, ignored, config)
    expected = textbook_objects(position, logits, scene, ignored, config)
    assert len(expected) >= 3 and len(found.category) == len(expected)
    for number, (points, category, score) in enumerate(expected):
        assert torch.nonzero(found.member == number)[:, 0].tolist() == points
        assert int(found.category[number]) == category
        assert float(found.score[number]) == pytest.approx(score, abs=1e-6)
    assert int((found.member >= 0).sum()) == sum(len(points) for points, _, _ in expected)


def test_published_sizes_keep_objects_of_101_points_and_more() -> None:
    position = torch.cat([torch.zeros(100, 3), torch.full((101, 3), 9.0)])
    found = group_points(
        position, torch.zeros(201, 2), torch.zeros(201, dtype=torch.long), (), GroupingConfig()
    )
    assert found.member.tolist() == [-1] * 100 + [0] * 101 and found.score.tolist() == [0.5]


def test_where_all_points_are_of_ignored_classes_there_are_no_objects() -> None:
    found = group_points(
        torch.zeros(5, 3), torch.zeros(5, 2), torch.zeros(5, dtype=torch.long), (0,), GroupingConfig()
    )
    assert found.member.tolist() == [-1] * 5 and len(found.category) == len(found.score) == 0
