"""Blocks of a cloud: together everything, each not too much."""

from __future__ import annotations

import pytest
import torch

from ponderv2.scenes.blocks import overlapping_blocks


@pytest.mark.parametrize(("limit", "margin"), [(500, 2), (1200, 5), (10_000, 3), (1, 4)])
def test_every_voxel_is_in_one_core_and_sees_its_neighbourhood(rng: torch.Generator, limit: int, margin: int):
    cells = torch.unique(torch.randint(40, (4000, 3), generator=rng) * torch.tensor([2, 1, 1]), dim=0)
    blocks = overlapping_blocks(cells, limit, margin)
    cores = torch.cat([block.core for block in blocks])
    assert torch.equal(torch.sort(cores).values, torch.arange(len(cells)))
    for block in blocks:
        core, seen = cells[block.core], set(block.seen.tolist())
        box = ((cells >= core.amin(0) - margin) & (cells <= core.amax(0) + margin)).all(dim=1)
        assert seen == set(torch.nonzero(box)[:, 0].tolist())
        narrow = int((core.amax(0) - core.amin(0)).max()) < margin
        assert len(seen) <= limit or narrow
