"""Lovász-softmax of points that several processes share, against one process with all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ponderv2.heads import lovasz
from ponderv2.heads.config import SegmentationLossConfig
from ponderv2.heads.semantic import segmentation_losses
from ponderv2.training.distributed import free_port
from tests.training.processes import join, run_ranks


def _points(shares: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Six classes, of which one never occurs and one in the last process only."""
    rng = torch.Generator().manual_seed(3)
    n = sum(shares)
    segment = torch.randint(-1, 4, (n,), generator=rng)
    segment[n - shares[-1] // 2 :] = 5
    return torch.randn(n, 6, generator=rng), segment


def _shared(rank: int, port: int, shares: tuple[int, ...], at_once: int) -> tuple[float, np.ndarray]:
    join(rank, port, len(shares), timeout=20.0)
    lovasz.MOST_ELEMENTS = at_once
    logits, segment = (part.split(list(shares))[rank] for part in _points(shares))
    logits = logits.clone().requires_grad_()
    losses = segmentation_losses(logits, segment, SegmentationLossConfig())
    losses.total().backward()
    assert logits.grad is not None
    return float(losses.lovasz.detach()), logits.grad.numpy()


@pytest.mark.parametrize(("shares", "at_once"), [((40, 25), 2**25), ((9, 0, 30), 50), ((0, 1), 1)], ids=str)
def test_loss_and_gradient_are_those_of_all_points_together(shares: tuple[int, ...], at_once: int) -> None:
    """Averaged over processes, as distributed training does; also a class at a time."""
    ranks = run_ranks(_shared, len(shares), free_port(), shares, at_once)
    logits, segment = _points(shares)
    logits.requires_grad_()
    losses = segmentation_losses(logits, segment, SegmentationLossConfig())
    losses.total().backward()
    assert logits.grad is not None
    assert np.mean([loss for loss, _ in ranks]) == pytest.approx(float(losses.lovasz.detach()), rel=1e-6)
    gradient = np.concatenate([one for _, one in ranks]) / len(shares)
    np.testing.assert_allclose(gradient, logits.grad.numpy(), rtol=1e-5, atol=1e-8)


def _unlabelled(rank: int, port: int) -> float:
    join(rank, port, 2, timeout=20.0)
    logits = torch.ones(rank, 3, requires_grad=True)
    loss = lovasz.lovasz_softmax(logits, torch.full((rank,), -1))
    loss.backward()
    torch.distributed.barrier()
    return float(loss.detach())


def test_processes_without_labels_lose_nothing() -> None:
    assert run_ranks(_unlabelled, 2, free_port()) == [0.0, 0.0]
