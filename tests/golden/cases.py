"""Golden cases: how they are found, how their weights are made, how arrays are compared."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

KIND_OF_TYPE = {
    "SpUNet-v1m1": "sparse_unet",
    "SpUNet-v1m2": "sparse_unet",
    "SpUNet-v1m3": "sparse_unet",
    "UNet3D-v1m1": "projection",
    "UNet3D-v1m2": "projection",
    "SimpleConv3D-v1m1": "projection",
    "NeuSModel": "renderer",
    "VolSDFModel": "renderer",
    "PonderIndoor-v2": "ponder_indoor",
    "PonderOutdoor-v2": "ponder_outdoor",
    "PPT-v1m1": "segmentation",
    "PPT-v1m2": "segmentation",
    "DefaultSegmentor": "segmentation",
    "CrossEntropyLoss": "segmentation_losses",
    "LovaszLoss": "segmentation_losses",
}


@dataclass(frozen=True)
class Case:
    """One `.npz` file of inputs and outputs."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}

    @cached_property
    def meta(self) -> dict[str, Any]:
        with np.load(self.path, allow_pickle=False) as archive:
            return json.loads(str(archive["meta"]))

    @property
    def config(self) -> dict[str, Any]:
        """Hyper-parameters under their official names."""
        return self.meta.get("config") or {}

    @cached_property
    def kind(self) -> str:
        if "type" in self.config:
            return KIND_OF_TYPE.get(self.config["type"], self.config["type"])
        with np.load(self.path, allow_pickle=False) as archive:
            names = set(archive.files)
        if "criteria" in self.config and "backbone" not in self.config:
            return "segmentation_losses"
        if any(name.startswith("in_pred_masks") for name in names):
            return "instance_precision"
        if "out_cube_coord" in names:
            return "unit_cube"
        if "out_center_shift_z_coord" in names or any(name.startswith("out_grid_fnv") for name in names):
            return "transforms"
        return "unknown"

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def tensor(self, name: str) -> Tensor:
        """A stored array, integers as int64."""
        array = self.arrays[name]
        if array.dtype.kind in "iu" and array.dtype != np.uint64:
            array = array.astype(np.int64)
        return torch.from_numpy(np.ascontiguousarray(array))

    def scalar(self, name: str) -> float:
        return float(self.arrays[name])


@lru_cache(maxsize=4)
def _all_cases(folder: Path) -> tuple[Case, ...]:
    return tuple(Case(path) for path in sorted(folder.glob("*.npz")))


def find_cases(folder: Path, kind: str) -> list[Case]:
    """All cases of one kind, by content and not by file name."""
    return [case for case in _all_cases(folder) if case.kind == kind]


def seeded_normal(text: str, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers seeded by the SHA-256 of a text."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    generator = np.random.Generator(np.random.PCG64(seed))
    return torch.from_numpy(np.asarray(generator.standard_normal(shape, dtype=np.float32)))


def golden_state(case: Case, prefix: str = "") -> dict[str, Tensor]:
    """State entries under their official names (those that start with `prefix`, without it)."""
    state: dict[str, Tensor] = {}
    salt = case.meta.get("salt", "")
    names = case.arrays["param_names"]
    for name, shape_text, kind in zip(
        names, case.arrays["param_shapes"], case.arrays["param_kinds"], strict=True
    ):
        name, kind = str(name), str(kind)
        shape = tuple(int(n) for n in str(shape_text).split(",") if n)
        if not name.startswith(prefix) or kind in ("keep", "explicit"):
            continue
        z = seeded_normal(salt + name, shape)
        state[name[len(prefix) :]] = _by_kind(kind, z)
    return state


def _by_kind(kind: str, z: Tensor) -> Tensor:
    match kind:
        case "matrix":
            return z * np.float32(1.0 / np.sqrt(np.prod(z.shape[1:])))
        case "norm_weight":
            return 1.0 + 0.1 * z
        case "bias" | "running_mean":
            return 0.1 * z
        case "running_var":
            return 1.0 + 0.1 * z.abs()
        case _:
            raise AssertionError(f"unknown weight rule '{kind}'")


def fill_weights(module: nn.Module, case: Case, prefix: str = "") -> None:
    """Give a module the weights of a case; every name and shape must agree, both ways."""
    state = golden_state(case, prefix)
    own = module.state_dict()
    missing = [name for name in own if name not in state and not _kept(name)]
    unexpected = [name for name in state if name not in own]
    assert not missing and not unexpected, f"missing {missing}, unexpected {unexpected}"
    module.load_state_dict(state, strict=False)


def _kept(name: str) -> bool:
    kept = (
        "num_batches_tracked",
        "deviation_network.variance",
        "laplace_density.beta",
        "laplace_density.beta_min",
    )
    return name.endswith((*kept, "logit_scale", "class_embedding"))


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
    error = (actual.detach().double().flatten() - expected).abs() / expected.pow(2).mean().sqrt().clamp(
        min=1e-30
    )
    p99 = float(torch.quantile(error[:: max(1, len(error) // 1_000_000)], 0.99))
    assert p99 <= bound, f"{name}: 99th percentile {p99:.2e} above {bound:.0e}"


def assert_rows(case: Case, name: str, rows: Tensor, bound: float) -> None:
    """Compare a [row, channel] result with whatever the case keeps of it: rows, projection, mean, std."""
    if name in case:
        assert_relative_l2(rows, case.tensor(name), bound, name)
        return
    if f"{name}__rows" in case:
        picked = rows[case.tensor(f"{name}__rows")]
        assert_relative_l2(picked, case.tensor(f"{name}__sample"), bound, f"{name}__sample")
    if f"{name}__proj" in case:
        r = seeded_normal(f"proj/{name}", (rows.shape[-1],)).double() / np.sqrt(rows.shape[-1])
        assert_relative_l2(rows.detach().double() @ r, case.tensor(f"{name}__proj"), bound, f"{name}__proj")
    if f"{name}__mean" in case:
        scale = float(rows.detach().double().std(0, unbiased=False).norm())
        error = float((rows.detach().double().mean(0) - case.tensor(f"{name}__mean").double()).norm())
        assert error <= bound * scale, f"{name}__mean: {error:.2e} of {scale:.2e}"
        error = float(
            (rows.detach().double().std(0, unbiased=False) - case.tensor(f"{name}__std").double()).norm()
        )
        assert error <= bound * scale, f"{name}__std: {error:.2e} of {scale:.2e}"


def assert_parameter_gradients(
    case: Case, prefix: str, module: nn.Module, bound: float, own_prefix: str = ""
) -> None:
    """Norm and check product of every parameter gradient.

    `prefix` is that of the arrays (`out_train`), `own_prefix` that of the module inside the stored names.
    Below 1e-4 of the largest norm that absolute bound applies: some gradients are zero in exact arithmetic.
    """
    names = [str(name) for name in case.arrays[f"{prefix}_grad_names"]]
    norms, dots = case.arrays[f"{prefix}_grad_norm"], case.arrays[f"{prefix}_grad_dot"]
    largest = float(np.nanmax(norms))
    parameters = dict(module.named_parameters())
    for name, norm, dot in zip(names, norms, dots, strict=True):
        if not name.startswith(own_prefix):
            continue
        gradient = parameters[name[len(own_prefix) :]].grad
        if np.isnan(norm) or gradient is None:
            quiet = gradient is None or float(gradient.norm()) <= 1e-4 * largest
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
