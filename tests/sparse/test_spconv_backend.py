"""The calls into spconv, against plain torch: values, gradients, order of rows, number types."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ponderv2.sparse import spconv_backend, torch_backend
from ponderv2.sparse.kernel_maps import Level
from tests.sparse import fake_spconv, twins

KINDS = ["submanifold", "strided", "inverse"]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_spconv.CallLog]:
    """The fake package; modules of it must not stay behind."""
    spconv_backend._module.cache_clear()
    yield fake_spconv.install(monkeypatch)
    spconv_backend._module.cache_clear()


def given(rng: torch.Generator, kind: str) -> tuple[Level, Tensor, Tensor]:
    level = twins.random_level(rng)
    start = level.strided(2, 2)[1] if kind == "inverse" else level
    size = 3 if kind == "submanifold" else 2
    feature = torch.randn(len(start), 8, generator=rng)
    weight = torch.randn(6, size, size, size, 8, generator=rng)
    return level, feature.requires_grad_(), weight.requires_grad_()


def computed(backend, kind: str, level: Level, feature: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """Result and both gradients."""
    level = Level(level.indices, level.extent, level.n_scenes)  # nothing cached by another run
    if kind == "inverse":  # spconv needs the strided convolution that it undoes
        backend.strided(feature.new_zeros(len(level), 8), weight.new_zeros(4, 2, 2, 2, 8), 2, level)
    more = () if kind == "submanifold" else (2,)
    y = getattr(backend, kind)(feature, weight, *more, level)
    return (y, *torch.autograd.grad(y.float().square().sum(), (feature, weight)))


@pytest.mark.parametrize("kind", KINDS)
def test_values_gradients_and_order_are_those_of_plain_torch(calls, rng: torch.Generator, kind: str) -> None:
    case = given(rng, kind)
    ours, theirs = computed(torch_backend, kind, *case), computed(spconv_backend, kind, *case)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)
    assert set(calls.types) == {torch.float32}


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_never_computed_in_float16(calls, rng: torch.Generator, kind: str) -> None:
    """Numbers beyond the range of float16 (65504) stay finite: the float32 result, rounded."""
    level, feature, weight = given(rng, kind)
    feature = (feature.detach() * 1e6).requires_grad_()
    exact = computed(spconv_backend, kind, level, feature, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = computed(spconv_backend, kind, level, feature, weight)
    assert set(calls.types) == {torch.float32}
    assert found[0].dtype == torch.bfloat16
    assert torch.equal(found[0], exact[0].bfloat16())
    for one, other in zip(exact[1:], found[1:], strict=True):
        assert bool(torch.isfinite(other).all()) and (one - other).norm() <= 0.02 * one.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_float16_autocast_is_that_of_spconv(calls, rng: torch.Generator, kind: str) -> None:
    level, feature, weight = given(rng, kind)
    exact = computed(spconv_backend, kind, level, feature, weight)
    calls.types.clear()
    with torch.autocast("cpu", dtype=torch.float16):
        found = computed(spconv_backend, kind, level, feature, weight)
    assert set(calls.types) == {torch.float16}
    assert (exact[0] - found[0].float()).norm() <= 0.01 * exact[0].norm()


def test_features_that_are_bfloat16_already_come_back_as_such(calls, rng: torch.Generator) -> None:
    level, feature, weight = given(rng, "submanifold")
    found = spconv_backend.submanifold(feature.bfloat16(), weight, level)
    exact = torch_backend.submanifold(feature.bfloat16().float(), weight, level)
    assert calls.types == [torch.float32] and found.dtype == torch.bfloat16
    assert torch.equal(found, exact.bfloat16())


def test_an_inverse_convolution_without_its_strided_one_is_refused(calls, rng: torch.Generator) -> None:
    level, feature, weight = given(rng, "inverse")
    with pytest.raises(ValueError, match="no strided convolution of kernel"):
        spconv_backend.inverse(feature, weight, 2, level)
