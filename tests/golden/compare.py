"""How results are compared with whatever a case keeps of them, and the bounds.

An array X is stored whole, as some of its rows (`X__rows`, `X__sample`), as every row or every n-th times a
fixed vector (`X__proj`), as `X__mean` and `X__std` over rows, or in several of these forms: all of them are
compared. Rows follow the inputs; those of a volume are its cells in (scene, z, y, x) order.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.golden.cases import Case, seeded_normal

FEATURES = 1e-4
"""Relative L2 of features, volumes, rendered colour and depth in evaluation mode."""
TRAINED_FEATURES = 1e-3
"""The same with batch statistics, which amplify rounding where a level has few voxels."""
SAMPLES, SAMPLES_P99 = 1e-3, 5e-3
"""Relative L2 and 99th percentile of what a renderer gives per sample, of normals and of semantics: a
last-bit difference moves single samples across borders of cells and of the importance sampler."""
RENDERED, RENDERED_P99 = 1e-3, 1e-4
"""Colour and depth of a whole model in evaluation mode. Its volume differs from the published one in the last
bits, so single samples fall to the other side of a kink: the norm over all rays is loose for those few, the
99th percentile is tight for the rest."""
BACKBONE_GRADIENT = 2e-2
"""Of a loss with respect to backbone features: rounding decides which ReLUs and cells a sample meets. The
published code differs from itself by up to 5e-4 over all rows, and by far more in single ones."""
PARAMETER_GRADIENT = 5e-3
TRAINED_PARAMETER_GRADIENT = 5e-2
"""Of parameters through batch statistics of the sparse U-Net, where ReLUs flip."""


def relative_l2(actual: Tensor, expected: Tensor) -> float:
    """|actual - expected| / |expected| over all entries, in float64."""
    actual, expected = actual.detach().double().flatten(), expected.double().flatten()
    assert actual.shape == expected.shape, f"{tuple(actual.shape)} is not {tuple(expected.shape)}"
    return float((actual - expected).norm() / expected.norm().clamp(min=1e-30))


def assert_relative_l2(actual: Tensor, expected: Tensor, bound: float, name: str = "") -> None:
    """The relative L2 error is below the bound."""
    error = relative_l2(actual, expected)
    assert error <= bound, f"{name}: relative L2 error {error:.2e} above {bound:.0e}"


def assert_p99(actual: Tensor, expected: Tensor, bound: float, name: str = "") -> None:
    """The 99th percentile of |error| / rms is below the bound."""
    expected = expected.double().flatten()
    rms = expected.pow(2).mean().sqrt().clamp(min=1e-30)
    error = (actual.detach().double().flatten() - expected).abs() / rms
    p99 = float(torch.quantile(error[:: max(1, len(error) // 1_000_000)], 0.99))
    assert p99 <= bound, f"{name}: 99th percentile {p99:.2e} above {bound:.0e}"


def skip_without(case: Case, prefix: str) -> None:
    """A case may keep one mode only."""
    if not any(name.startswith(prefix) for name in case.names):
        pytest.skip(f"{case.name} holds no arrays {prefix}*")


def cells_first(volume: Tensor) -> Tensor:
    """[scene, channel, z, y, x] -> [cell, channel], cells in (scene, z, y, x) order."""
    return volume.permute(0, 2, 3, 4, 1).flatten(0, 3)


FORMS = ("", "rows", "sample", "proj", "mean", "std", "step")
"""What follows the name of an array and `__`; nothing where it is stored whole."""


def assert_rows(
    case: Case,
    name: str,
    rows: Tensor,
    bound: float,
    p99: float | None = None,
    forms_read: tuple[str, ...] = FORMS,
) -> int:
    """Compare a [row, ..., channel] result with all that the case keeps of it; how many forms that were.

    Raises AssertionError where a form differs, or where a stored form has a name that is not known.
    """
    forms = {stored.partition("__")[2] for stored in case.arrays if stored.partition("__")[0] == name}
    unknown = forms - set(FORMS)
    assert not unknown, f"{case.name}: nobody reads {name}__{', '.join(sorted(unknown))}"
    forms &= set(forms_read)
    compared = 0
    if "" in forms:
        compared += _whole(case, name, rows, bound, p99)
    if "sample" in forms:
        picked = rows[case.tensor(f"{name}__rows")]
        _both(picked, case.tensor(f"{name}__sample"), bound, p99, f"{name}__sample")
        compared += 1
    if "proj" in forms:
        compared += _projection(case, name, rows, bound, p99)
    if forms & {"mean", "std"}:
        compared += _moments(case, name, rows, bound)
    return compared


def _whole(case: Case, name: str, rows: Tensor, bound: float, p99: float | None) -> int:
    """All rows, or those at `in_ray_rows`. Where the published number is not finite nothing is known."""
    expected = case.tensor(name)
    own = rows if len(expected) == len(rows) else rows[case.tensor("in_ray_rows")]
    own, known = own.reshape(expected.shape), torch.isfinite(expected)
    _both(own[known], expected[known], bound, p99, name)
    return 1


def _both(actual: Tensor, expected: Tensor, bound: float, p99: float | None, name: str) -> None:
    assert_relative_l2(actual, expected, bound, name)
    if p99 is not None:
        assert_p99(actual, expected, p99, name)


def _projection(case: Case, name: str, rows: Tensor, bound: float, p99: float | None) -> int:
    """Every row, or every n-th, times a vector that the name of the array gives."""
    expected = case.tensor(f"{name}__proj")
    rows = rows.detach().reshape(-1, rows.shape[-1]) if expected.ndim == 1 else rows.detach()
    width = rows.shape[-1]
    r = seeded_normal(f"proj/{name}", (width,)).double() / np.sqrt(width)
    product = rows.double() @ r
    steps = (
        [int(case.scalar(f"{name}__step"))] if f"{name}__step" in case else _steps(len(rows), len(expected))
    )
    choices = [product[::step].reshape(expected.shape) for step in steps]
    own = min(choices, key=lambda choice: relative_l2(choice, expected))
    _both(own, expected, bound, p99, f"{name}__proj")
    return 1


def _steps(n_rows: int, n_stored: int) -> list[int]:
    """Every n for which every n-th of the rows are that number; of several the values decide."""
    fitting = [n for n in range(1, n_rows + 1) if -(-n_rows // n) == n_stored]
    assert fitting, f"{n_stored} rows are not every n-th of {n_rows}"
    return fitting


def _moments(case: Case, name: str, rows: Tensor, bound: float) -> int:
    """Mean and deviation over rows, both beside the size of the deviation."""
    flat = rows.detach().double().reshape(-1, rows.shape[-1])
    own = {"mean": flat.mean(0), "std": flat.std(0, unbiased=False)}
    scale, compared = float(own["std"].norm()), 0
    for what, value in own.items():
        if f"{name}__{what}" in case:
            error = float((value - case.tensor(f"{name}__{what}").double()).norm())
            assert error <= bound * scale, f"{name}__{what}: {error:.2e} of {scale:.2e}"
            compared += 1
    return compared


def assert_absolute(case: Case, name: str, actual: Tensor, tolerance: float, relative: float = 0.0) -> None:
    """Positions of metre size, whole or at sampled rows; nothing where the case has neither."""
    if name in case:
        expected = case.tensor(name)
        torch.testing.assert_close(actual.reshape(expected.shape), expected, rtol=relative, atol=tolerance)
    elif f"{name}__sample" in case.arrays:
        rows = case.tensor(f"{name}__rows")
        torch.testing.assert_close(
            actual[rows], case.tensor(f"{name}__sample"), rtol=relative, atol=tolerance
        )


def assert_norm(case: Case, name: str, values: Tensor, bound: float) -> None:
    """The L2 norm, summed in double, and that of each scene where the case has it."""
    own = values.detach().double()
    if name in case:
        error = abs(float(own.norm()) / case.scalar(name) - 1.0)
        assert error <= bound, f"{name}: {error:.2e} above {bound:.0e}"
    per_scene = f"{name}_per_scene"
    if per_scene in case:
        assert_relative_l2(own.flatten(1).norm(dim=1), case.tensor(per_scene), bound, per_scene)


def assert_parameter_gradients(
    case: Case, prefix: str, module: nn.Module, bound: float, own_prefix: str = ""
) -> None:
    """Norm and check product of every parameter gradient, where the case has them.

    `prefix` is that of the arrays (`out_train`), `own_prefix` that of the module inside the stored names.
    Below 1e-4 of the largest norm that absolute bound applies: some gradients are zero in exact arithmetic.
    """
    if f"{prefix}_grad_names" not in case:
        return
    names = [str(name) for name in case.arrays[f"{prefix}_grad_names"]]
    norms, dots = case.arrays[f"{prefix}_grad_norm"], case.arrays[f"{prefix}_grad_dot"]
    largest = float(np.nanmax(norms))
    parameters = dict(module.named_parameters())
    for name, norm, dot in zip(names, norms, dots, strict=True):
        if not name.startswith(own_prefix):
            continue
        gradient = parameters[name[len(own_prefix) :]].grad
        if np.isnan(norm) or gradient is None:
            quiet = gradient is None or float(gradient.double().norm()) <= 1e-4 * largest
            silent = np.isnan(norm) or norm <= 1e-4 * largest
            assert quiet and silent, f"{name}: gradient {gradient is not None}, expected norm {norm}"
            continue
        allowed = max(bound * float(norm), 1e-4 * largest)
        own = gradient.double()
        r = seeded_normal(f"grad/{name}", tuple(own.shape)).double()
        assert abs(float(own.norm()) - norm) <= allowed, (
            f"{name}: norm {float(own.norm()):.4e}, expected {norm:.4e}"
        )
        assert abs(float((own * r).sum()) - dot) <= 3 * allowed, (
            f"{name}: dot {float((own * r).sum()):.4e}, expected {dot:.4e}"
        )
