"""What votes and proposals of a batch are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ponderv2.geometry.boxes import ARRAYS, Boxes


@dataclass(frozen=True)
class Matches:
    """The nearest box of each proposal, by the distance of its cluster to the centre."""

    box: Int[Tensor, " proposal"]
    """Row among the boxes of all scenes; 0 where the scene has none."""
    positive: Bool[Tensor, " proposal"]
    counted: Bool[Tensor, " proposal"]
    """Whether the objectness is trained: not between near and far."""


@torch.no_grad()
def vote_targets(
    seed: Float[Tensor, "seed 3"], vote: Float[Tensor, "seed 3"], boxes: Boxes, most: int
) -> tuple[Float[Tensor, "seed 3"], Bool[Tensor, " seed"]]:
    """Centre of a box that each seed lies in, and whether there is one.

    Of several boxes the first `most` count, and of them the one whose centre is nearest to the vote by
    |x| + |y| + |z|.
    """
    if len(boxes) == 0 or len(seed) == 0:
        return vote.detach(), torch.zeros(len(vote), dtype=torch.bool, device=vote.device)
    inside = boxes.contains(seed)
    inside &= inside.long().cumsum(dim=0) <= most
    away = (vote.detach()[None] - boxes.center[:, None]).abs().sum(dim=-1)
    nearest, box = torch.where(inside, away, torch.inf).min(dim=0)
    return boxes.center[box], torch.isfinite(nearest)


@torch.no_grad()
def matches(
    cluster: Float[Tensor, "proposal 3"],
    offset: Int[Tensor, " scene"],
    boxes: Sequence[Boxes],
    near: float,
    far: float,
) -> Matches:
    """Objects are nearer to a centre than `near`, none is nearer than `far` to any."""
    row = torch.zeros(len(cluster), dtype=torch.long, device=cluster.device)
    distance = torch.full_like(cluster[:, 0], torch.inf)
    first = start = 0
    for end, found in zip(offset.tolist(), boxes, strict=True):
        if len(found) and end > start:
            away = (cluster[start:end, None] - found.center).norm(dim=-1)
            distance[start:end], row[start:end] = away.min(dim=1)
            row[start:end] += first
        first, start = first + len(found), end
    return Matches(row, distance < near, (distance < near) | (distance > far))


def joined_boxes(boxes: Sequence[Boxes]) -> Boxes:
    """Boxes of several scenes in one; without the fields of their data set."""
    if not boxes:
        return Boxes.empty()
    arrays = {name: torch.cat([one.arrays[name] for one in boxes]) for name in ARRAYS}
    return Boxes(**arrays)  # pyright: ignore[reportArgumentType]
