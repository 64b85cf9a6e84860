"""The projection on several processes, whose volumes are filled differently, against one with all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ponderv2.geometry.volumes import SparseVolume
from ponderv2.lift.config import DoubleConvUNet3DConfig, UNet3DConfig
from ponderv2.lift.kinds import build_projection
from ponderv2.lift.sparse_input_conv import DENSE_OCCUPANCY_THRESHOLD
from ponderv2.training.distributed import free_port
from tests.training.processes import join, run_ranks

CONFIGS = [
    UNet3DConfig(f_maps=4, n_levels=2, out_channels=5),
    DoubleConvUNet3DConfig(f_maps=4, n_levels=2, out_channels=5),
]
SIZE = (6, 7, 5)


def cells(shares: tuple[float, ...]) -> SparseVolume:
    """One scene for each share of occupied cells."""
    rng = torch.Generator().manual_seed(len(shares))
    n_inner = int(np.prod(SIZE))
    chosen = [torch.randperm(n_inner, generator=rng)[: round(share * n_inner)].sort()[0] for share in shares]
    number = torch.cat([one + scene * n_inner for scene, one in enumerate(chosen)])
    rows = torch.randn(len(number), 6, dtype=torch.float64, generator=rng)
    n_scenes = len(shares)
    return SparseVolume(rows, number, (n_scenes, *SIZE), torch.zeros(n_scenes, 3), torch.ones(n_scenes, 3))


def scene_of(volume: SparseVolume, scene: int) -> SparseVolume:
    n_inner = int(np.prod(SIZE))
    own = volume.number // n_inner == scene
    number = volume.number[own] - scene * n_inner
    return SparseVolume(volume.rows[own], number, (1, *SIZE), volume.lower[:1], volume.upper[:1])


def outcome(config: UNet3DConfig | DoubleConvUNet3DConfig, volume: SparseVolume) -> dict[str, np.ndarray]:
    """Values, gradients of rows and parameters, running statistics."""
    torch.manual_seed(0)
    model = build_projection(config, 6).double()
    rows = volume.rows.clone().requires_grad_()
    found = model(SparseVolume(rows, volume.number, volume.shape, volume.lower, volume.upper))
    (found.sin() * torch.arange(5.0)[:, None, None, None]).sum().backward()
    named = {"values": found, "rows": rows.grad, **dict(model.named_buffers())}
    named |= {name: parameter.grad for name, parameter in model.named_parameters()}
    return {name: value.detach().contiguous().numpy() for name, value in named.items() if value is not None}


def _rank(rank: int, port: int, shares: tuple[float, ...], number: int) -> dict[str, np.ndarray]:
    join(rank, port, len(shares), timeout=20.0)
    return outcome(CONFIGS[number], scene_of(cells(shares), rank))


@pytest.mark.parametrize("shares", [(0.2, 0.29), (0.2, 0.6), (0.05, 0.3, 0.1), (0.0, 0.3)], ids=str)
@pytest.mark.parametrize("number", [0, 1], ids=[config.kind for config in CONFIGS])
def test_processes_on_both_sides_of_the_threshold_equal_one(shares: tuple[float, ...], number: int) -> None:
    assert min(shares) < DENSE_OCCUPANCY_THRESHOLD < max(shares)
    ranks = run_ranks(_rank, len(shares), free_port(), shares, number)
    truth = outcome(CONFIGS[number], cells(shares))
    for name, expected in truth.items():
        if name in ("values", "rows"):
            found = np.concatenate([rank[name] for rank in ranks])
        elif "running" in name or "tracked" in name:
            found = ranks[-1][name]
        else:
            found = sum(rank[name] for rank in ranks)
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9, err_msg=name)
