"""Metrics of depth against their definitions, pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch

from ponderv2.evaluation.depth import DepthSums


def test_metrics_are_those_of_the_definitions(rng: torch.Generator) -> None:
    truth = torch.rand(60, generator=rng) * 40 + 1
    depth = truth * (0.6 + 0.8 * torch.rand(60, generator=rng))
    pairs = [(float(a), float(b)) for a, b in zip(depth.double(), truth.double(), strict=True)]
    parts = [DepthSums.of(depth[:7], truth[:7]), DepthSums.of(depth[7:], truth[7:])]
    metrics = DepthSums.total(parts).metrics()
    assert metrics["abs_rel"] == pytest.approx(sum(abs(a - b) / b for a, b in pairs) / 60)
    assert metrics["rmse"] == pytest.approx(math.sqrt(sum((a - b) ** 2 for a, b in pairs) / 60))
    assert metrics["delta1"] == pytest.approx(sum(max(a / b, b / a) < 1.25 for a, b in pairs) / 60)
    assert 0.2 < metrics["delta1"] < 0.9


def test_numbers_by_hand() -> None:
    metrics = DepthSums.of(torch.tensor([2.0, 5.0]), torch.tensor([1.0, 4.0001])).metrics()
    assert metrics["abs_rel"] == pytest.approx((1 + 0.25) / 2, abs=1e-4)
    assert metrics["rmse"] == pytest.approx(1.0, abs=1e-4) and metrics["delta1"] == 0.5


def test_nothing_measured_gives_no_number() -> None:
    none = torch.zeros(0)
    assert all(math.isnan(value) for value in DepthSums.of(none, none).metrics().values())
    some = DepthSums.of(torch.ones(1), torch.ones(1))
    assert DepthSums.total([some, DepthSums.of(none, none)]) == some
