"""Sums and means of consecutive rows: a plain loop, and torch-scatter where it is installed."""

import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from ponderv2.geometry import segments
from ponderv2.geometry.segments import segment_mean, segment_sum

COUNTS = (3, 0, 5, 2)


def by_loop(rows: torch.Tensor, mean: bool) -> torch.Tensor:
    found, first = [], 0
    for count in COUNTS:
        part = rows[first : first + count].sum(0)
        found.append(part / count if mean and count else part)
        first += count
    return torch.stack(found)


@pytest.mark.parametrize("mean", [False, True])
def test_values_and_gradients_are_those_of_a_loop(rng: torch.Generator, mean: bool) -> None:
    rows = torch.randn(10, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 4, generator=rng, dtype=torch.float64)
    function = segment_mean if mean else segment_sum
    ours = function(rows, torch.tensor(COUNTS))
    expected = by_loop(rows, mean)
    assert torch.allclose(ours, expected, atol=1e-14)
    gradient = torch.autograd.grad((ours * weight).sum(), rows)[0]
    assert torch.allclose(gradient, torch.autograd.grad((expected * weight).sum(), rows)[0], atol=1e-14)


def test_no_rows_have_no_segments() -> None:
    assert segment_mean(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)).shape == (0, 3)
    assert segment_sum(torch.zeros(0, 3), torch.zeros(2, dtype=torch.long)).tolist() == [[0.0] * 3] * 2


def test_torch_scatter_is_given_the_borders_of_the_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for segment_csr, whose segment i is rows[indptr[i]:indptr[i + 1]]."""

    def segment_csr(rows: torch.Tensor, indptr: torch.Tensor, reduce: str) -> torch.Tensor:
        assert reduce == "sum"
        borders = indptr.tolist()
        return torch.stack([rows[a:b].sum(0) for a, b in pairwise(borders)])

    monkeypatch.setitem(sys.modules, "torch_scatter", SimpleNamespace(segment_csr=segment_csr))
    monkeypatch.setattr(segments, "_by_torch_scatter", lambda rows: True)
    rows = torch.arange(40.0).reshape(10, 4)
    assert torch.equal(segment_sum(rows, torch.tensor(COUNTS)), by_loop(rows, mean=False))
    assert torch.allclose(segment_mean(rows, torch.tensor(COUNTS)), by_loop(rows, mean=True))


def test_torch_scatter_equals_the_plain_path(rng: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch_scatter", reason="the extra 'scatter' is not installed")
    rows = torch.randn(10, 4, generator=rng, requires_grad=True)
    plain = segment_mean(rows, torch.tensor(COUNTS))
    monkeypatch.setattr(segments, "_by_torch_scatter", lambda rows: True)
    ours = segment_mean(rows, torch.tensor(COUNTS))
    assert torch.allclose(ours, plain, atol=1e-6)
    gradients = [torch.autograd.grad(one.square().sum(), rows)[0] for one in (ours, plain)]
    assert torch.allclose(*gradients, atol=1e-6)
