"""Farthest point sampling and ball query: some points of each scene, and the neighbours of a place."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ponderv2.geometry.voxels import batch_index


def padded_rows(
    offset: Int[Tensor, " scene"],
) -> tuple[Int[Tensor, "scene slot"], Bool[Tensor, "scene slot"]]:
    """Rows of each scene side by side and which slots are taken; a slot without a row names row 0."""
    counts = torch.diff(offset, prepend=offset.new_zeros(1))
    n_slots = int(counts.max()) if len(counts) else 0
    slot = torch.arange(n_slots, device=offset.device)
    taken = slot < counts[:, None]
    return torch.where(taken, (offset - counts)[:, None] + slot, 0), taken


def farthest_points(
    coord: Float[Tensor, "point 3"], offset: Int[Tensor, " scene"], n: int
) -> tuple[Int[Tensor, " chosen"], Int[Tensor, " scene"]]:
    """Rows of up to `n` points of each scene, in the order they are chosen, and the ends of the scenes.

    The first point of a scene is chosen first, then always the one farthest from all chosen ones, of equal
    ones the first. A scene of fewer points gives all of them, one without points none.
    """
    row, taken = padded_rows(offset)
    if row.numel() == 0 or n < 1:
        return offset.new_zeros(0), torch.zeros_like(offset)
    place = coord.detach()[row]
    distance = torch.where(taken, torch.inf, -torch.inf).to(coord.dtype)
    chosen = torch.zeros(len(row), min(n, row.shape[1]), dtype=torch.long, device=coord.device)
    each = torch.arange(len(row), device=coord.device)
    for step in range(1, chosen.shape[1]):
        last = place[each, chosen[:, step - 1]]
        distance = torch.minimum(distance, (place - last[:, None]).square().sum(dim=-1))
        # What was chosen is never farthest again, even where all that is left is as near to it.
        distance[each, chosen[:, step - 1]] = -torch.inf
        chosen[:, step] = distance.argmax(dim=1)
    counts = taken.sum(dim=1).clamp(max=n)
    there = torch.arange(chosen.shape[1], device=coord.device) < counts[:, None]
    return row.gather(1, chosen)[there], counts.cumsum(0)


def ball_query(
    coord: Float[Tensor, "point 3"],
    offset: Int[Tensor, " scene"],
    center: Float[Tensor, "center 3"],
    center_offset: Int[Tensor, " scene"],
    radius: float,
    n: int,
) -> Int[Tensor, "center neighbour"]:
    """Rows of the first `n` points of its scene that are nearer to each centre than `radius`.

    Where there are fewer, the first one is repeated; where there is none, the row is -1.
    """
    row, taken = padded_rows(offset)
    center_row, center_taken = padded_rows(center_offset)
    if row.numel() == 0 or len(center) == 0:
        return torch.full((len(center), n), -1, device=coord.device)
    square = (center.detach()[center_row][:, :, None] - coord.detach()[row][:, None]).square().sum(dim=-1)
    n_slots = row.shape[1]
    slot = torch.arange(n_slots, device=coord.device)
    near = torch.where((square < radius * radius) & taken[:, None], slot, n_slots)
    first = near.topk(min(n, n_slots), dim=2, largest=False, sorted=True).values[center_taken]
    first = torch.where(first == n_slots, first[:, :1], first)
    first = torch.cat([first, first[:, :1].expand(-1, n - first.shape[1])], dim=1)
    found = row[batch_index(center_offset)].gather(1, first.clamp(max=n_slots - 1))
    return torch.where(first == n_slots, -1, found)
