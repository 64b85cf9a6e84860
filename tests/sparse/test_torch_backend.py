"""Sparse convolution in plain torch against dense convolution, a loop, and itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ponderv2.sparse import gather_gemm_scatter as by_entry
from ponderv2.sparse import torch_backend
from ponderv2.sparse.kernel_maps import Level
from tests.sparse import twins

KERNELS = [3, 5, (3, 1, 5)]
STRIDED = [(2, 2), (3, 2), (2, 3), (3, 3), (1, 2)]


def random_weight(
    rng: torch.Generator, kernel: int | tuple[int, ...], channels: tuple[int, int] = (4, 3)
) -> Tensor:
    size = (kernel,) * 3 if isinstance(kernel, int) else kernel
    return torch.randn(channels[0], *size, channels[1], generator=rng, dtype=torch.float64).requires_grad_()


def random_feature(rng: torch.Generator, level: Level, channels: int = 3) -> Tensor:
    return torch.randn(len(level), channels, generator=rng, dtype=torch.float64).requires_grad_()


def assert_same(
    ours: Callable[[Tensor, Tensor], Tensor], theirs: Callable[[Tensor, Tensor], Tensor], x: Tensor, w: Tensor
) -> None:
    """Values and both gradients."""
    a, b = ours(x, w), theirs(x, w)
    torch.testing.assert_close(a, b)
    cotangent = torch.sin(torch.arange(a.numel(), dtype=a.dtype)).view_as(a)
    for one, other in zip(
        torch.autograd.grad(a, (x, w), cotangent), torch.autograd.grad(b, (x, w), cotangent), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kernel", KERNELS)
def test_submanifold_equals_dense_convolution(rng: torch.Generator, kernel: int | tuple[int, ...]) -> None:
    level = twins.random_level(rng)
    x, w = random_feature(rng, level), random_weight(rng, kernel)
    assert_same(
        lambda x, w: torch_backend.submanifold(x, w, level),
        lambda x, w: twins.dense_submanifold(x, w, level),
        x,
        w,
    )


@pytest.mark.parametrize(("kernel", "stride"), STRIDED)
def test_strided_equals_dense_convolution(rng: torch.Generator, kernel: int, stride: int) -> None:
    level = twins.random_level(rng)
    coarse = level.strided(kernel, stride)[1]
    x, w = random_feature(rng, level), random_weight(rng, kernel)
    assert_same(
        lambda x, w: torch_backend.strided(x, w, stride, level),
        lambda x, w: twins.dense_strided(x, w, stride, level, coarse),
        x,
        w,
    )


@pytest.mark.parametrize(("kernel", "stride"), STRIDED)
def test_inverse_equals_dense_transposed_convolution(rng: torch.Generator, kernel: int, stride: int) -> None:
    level = twins.random_level(rng)
    coarse = level.strided(kernel, stride)[1]
    x, w = random_feature(rng, coarse), random_weight(rng, kernel)
    assert_same(
        lambda x, w: torch_backend.inverse(x, w, stride, level),
        lambda x, w: twins.dense_inverse(x, w, stride, level, coarse),
        x,
        w,
    )


def test_submanifold_matches_the_loop(rng: torch.Generator) -> None:
    level = twins.random_level(rng, density=0.1)
    x, w = random_feature(rng, level).detach(), random_weight(rng, 3).detach()
    torch.testing.assert_close(torch_backend.submanifold(x, w, level), twins.looped_submanifold(x, w, level))


@pytest.mark.parametrize("kind", ["submanifold", "strided", "inverse"])
def test_gradients_agree_with_finite_differences(rng: torch.Generator, kind: str) -> None:
    level = twins.random_level(rng, density=0.05)
    start = level.strided(2, 2)[1] if kind == "inverse" else level
    x, w = random_feature(rng, start, 2), random_weight(rng, 3 if kind == "submanifold" else 2, (2, 2))

    def run(x: Tensor, w: Tensor) -> Tensor:
        if kind == "submanifold":
            return torch_backend.submanifold(x, w, level)
        return getattr(torch_backend, kind)(x, w, 2, level)

    assert torch.autograd.gradcheck(run, (x, w))


@pytest.mark.parametrize("channels", [(4, 4), (80, 72), (24, 96), (96, 24), (96, 96)])
def test_small_chunks_and_every_width_equal_dense_convolution(
    rng: torch.Generator, channels: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(torch_backend.CHUNK_ELEMENTS, "cpu", 64 * 27 * channels[1])
    monkeypatch.setitem(by_entry.BLOCK_ROWS, "cpu", 100)
    level = twins.random_level(rng)
    x, w = random_feature(rng, level, channels[1]), random_weight(rng, 3, channels)
    assert_same(
        lambda x, w: torch_backend.submanifold(x, w, level),
        lambda x, w: twins.dense_submanifold(x, w, level),
        x,
        w,
    )


def test_every_run_gives_the_same_bits_and_every_thread_count_the_same_features(rng: torch.Generator) -> None:
    level = twins.random_level(rng, n_scenes=30, density=0.35)
    x = random_feature(rng, level, 24).detach().float().requires_grad_()
    w = random_weight(rng, 3, (32, 24)).detach().float().requires_grad_()
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            y = torch_backend.submanifold(x, w, level)
            results.append((y, *torch.autograd.grad(y.square().sum(), (x, w))))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(results[1], results[2], strict=True))
    # The matrix library splits the long sum of a weight gradient by threads: equal to rounding only.
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    torch.testing.assert_close(
        results[0][2], results[1][2], rtol=1e-5, atol=1e-4 * float(results[0][2].abs().max())
    )


def test_scenes_of_a_batch_do_not_mix(rng: torch.Generator) -> None:
    level = twins.random_level(rng, n_scenes=3)
    x, w = random_feature(rng, level).detach(), random_weight(rng, 5).detach()
    whole = torch_backend.submanifold(x, w, level)
    changed = x.clone()
    first = level.indices[:, 0] == 0
    changed[first] += 1.0
    again = torch_backend.submanifold(changed, w, level)
    assert torch.equal(whole[~first], again[~first])
    assert not torch.equal(whole[first], again[first])


@pytest.mark.parametrize("kind", ["submanifold", "strided", "inverse"])
def test_bfloat16_autocast_stays_close_to_float32(rng: torch.Generator, kind: str) -> None:
    level = twins.random_level(rng)
    start = level.strided(2, 2)[1] if kind == "inverse" else level
    x = random_feature(rng, start, 16).detach().float().requires_grad_()
    w = random_weight(rng, 3 if kind == "submanifold" else 2, (16, 16)).detach().float().requires_grad_()

    def run() -> tuple[Tensor, ...]:
        if kind == "submanifold":
            y = torch_backend.submanifold(x, w, level)
        else:
            y = getattr(torch_backend, kind)(x, w, 2, level)
        return (y, *torch.autograd.grad(y.float().square().sum(), (x, w)))

    exact = run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = run()
    assert rounded[0].dtype == torch.bfloat16
    assert [gradient.dtype for gradient in rounded[1:]] == [torch.float32] * 2
    for one, two in zip(exact, rounded, strict=True):
        assert (one - two.float()).norm() <= 0.02 * one.norm()


def test_wrong_number_of_features_is_refused(rng: torch.Generator) -> None:
    level = twins.random_level(rng)
    with pytest.raises(ValueError, match="rows of features"):
        torch_backend.submanifold(torch.zeros(len(level) + 1, 3), torch.zeros(4, 3, 3, 3, 3), level)
