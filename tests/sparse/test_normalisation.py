"""Batch normalisation at its edge; what it equals with several processes is in test_collectives."""

from __future__ import annotations

import pytest
import torch

from ponderv2.sparse.normalisation import BatchNorm


def trained(rng: torch.Generator) -> BatchNorm:
    layer = BatchNorm(4).train()
    layer(3.0 * torch.randn(50, 4, generator=rng) + 1.0)
    return layer


@pytest.mark.parametrize("shape", [(1, 4), (1, 4, 1, 1, 1)])
def test_a_single_value_is_normalised_as_in_evaluation(rng: torch.Generator, shape: tuple[int, ...]):
    layer = trained(rng)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    value = torch.randn(shape, generator=rng, requires_grad=True)
    in_training = layer(value)
    assert torch.equal(in_training, layer.eval()(value))
    assert all(torch.equal(now, before[name]) for name, now in layer.state_dict().items())
    in_training.sum().backward()
    assert value.grad is not None and bool((value.grad > 0).all())


def test_two_values_are_normalised_by_themselves(rng: torch.Generator):
    layer = trained(rng)
    mean = layer(torch.randn(2, 4, generator=rng)).mean(dim=0)
    assert torch.allclose(mean, torch.zeros(4), atol=1e-5)
