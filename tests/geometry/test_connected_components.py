"""Linked points, compared with a search over all pairs."""

from __future__ import annotations

from collections import deque

import pytest
import torch
from torch import Tensor

from ponderv2.geometry import connected_components as linking
from ponderv2.geometry.connected_components import (
    components_by_hooking,
    connected_components,
    radius_components,
)


def by_search(position: Tensor, group: Tensor, radius: float) -> list[int]:
    """Breadth first over the full table of distances, starting from each point that was not seen yet."""
    distance2 = (position[:, None].double() - position[None].double()).square().sum(-1)
    joined = (distance2 < radius**2) & (group[:, None] == group[None])
    leader = [-1] * len(position)
    for start in range(len(position)):
        if leader[start] >= 0:
            continue
        waiting = deque([start])
        leader[start] = start
        while waiting:
            for other in torch.nonzero(joined[waiting.popleft()])[:, 0].tolist():
                if leader[other] < 0:
                    leader[other] = start
                    waiting.append(other)
    return leader


def clouds(seed: int) -> dict[str, Tensor]:
    """Sparse, dense, flat and clumped points, some of them in the same places."""
    rng = torch.Generator().manual_seed(seed)
    sparse = torch.rand(500, 3, generator=rng) * 14.0
    clumps = torch.rand(12, 3, generator=rng)[torch.randint(12, (500,), generator=rng)] * 12.0
    return {
        "sparse": sparse - 7.0,
        "dense": torch.rand(400, 3, generator=rng) * 4.0,
        "flat": torch.rand(500, 3, generator=rng) * torch.tensor([30.0, 20.0, 0.0]),
        "clumped": clumps + 0.5 * torch.randn(500, 3, generator=rng),
        "repeated": torch.randint(0, 9, (400, 3), generator=rng).float(),
        "far apart": torch.cat([sparse, sparse + 1.0e6]),
    }


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("radius", [0.4, 1.0, 1.5])
def test_links_equal_those_of_a_search_over_all_pairs(seed: int, radius: float) -> None:
    for name, position in clouds(seed).items():
        group = torch.randint(0, 3, (len(position),), generator=torch.Generator().manual_seed(seed))
        assert radius_components(position, group, radius).tolist() == by_search(position, group, radius), name


def test_few_pairs_at_a_time_give_the_same_links(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {name: position for name, position in clouds(9).items() if name in ("dense", "clumped")}
    group = torch.zeros(500, dtype=torch.long)
    expected = {name: radius_components(value, group[: len(value)], 0.7) for name, value in cases.items()}
    monkeypatch.setattr(linking, "PAIRS_AT_ONCE", 5)
    for name, position in cases.items():
        assert torch.equal(radius_components(position, group[: len(position)], 0.7), expected[name])


def test_points_on_a_line_are_linked_up_to_but_not_at_the_radius() -> None:
    """Steps of 1.5 are not nearer than 1.5."""
    position = torch.zeros(4, 3)
    position[:, 1] = torch.tensor([0.0, 1.5, 2.9, 4.3])
    group = torch.zeros(4, dtype=torch.long)
    assert radius_components(position, group, 1.5).tolist() == [0, 1, 1, 1]
    assert radius_components(position, torch.tensor([0, 0, 1, 0]), 1.5).tolist() == [0, 1, 2, 3]


def test_points_that_are_not_finite_are_alone() -> None:
    position = torch.tensor([[0.0, 0, 0], [torch.nan, 0, 0], [0.1, 0, 0], [torch.inf, 0, 0], [1e30, 0, 0]])
    assert radius_components(position, torch.zeros(5, dtype=torch.long), 1.0).tolist() == [0, 1, 0, 3, 4]


def test_no_points_have_no_links() -> None:
    assert radius_components(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), 1.0).tolist() == []


@pytest.mark.parametrize("n_edges", [0, 20, 80, 300])
def test_both_ways_to_find_components_agree(n_edges: int) -> None:
    rng = torch.Generator().manual_seed(n_edges)
    first, second = torch.randint(0, 100, (2, n_edges), generator=rng)
    one, other = connected_components(first, second, 100), components_by_hooking(first, second, 100)
    n_components = int(one.max()) + 1
    assert n_components == int(other.max()) + 1 == len(set(zip(one.tolist(), other.tolist(), strict=True)))


def test_a_long_chain_is_one_component_by_hooking() -> None:
    order = torch.randperm(3000, generator=torch.Generator().manual_seed(0))
    assert int(components_by_hooking(order[:-1], order[1:], 3000).max()) == 0
