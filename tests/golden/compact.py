"""Makes the compact subset of golden cases that lies in tests/golden/data.

Run: python -m tests.golden.compact SOURCE TARGET

Inputs stay as they are; of outputs some rows, a product with a fixed vector of every n-th row, and what is
small are kept. No number is one of this project: all come from the published implementation.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tests.golden.cases import Case, all_cases, seeded_normal

SMALL = 6_000
"""Bytes up to which an array stays whole."""
N_ROWS, N_PRODUCTS, N_RAYS = 32, 400, 6
WHOLE = (
    "out_grid_",
    "out_normalize_",
    "out_ray_",
    "out_target_",
    "out_dense_mean_cells",
    "out_dense_mean_values",
)
"""Integers that are compared exactly, and arrays that are small beside their inputs."""


def compact(case: Case) -> dict[str, np.ndarray]:
    """The arrays of a case, fewer and smaller."""
    arrays = dict(case.arrays)
    if case.kind == "unit_cube":
        arrays = _one_channel(arrays)
    kept: dict[str, np.ndarray] = {}
    for name, values in arrays.items():
        base, _, form = name.partition("__")
        if not name.startswith("out_") or name.startswith(WHOLE) or (values.nbytes <= SMALL and not form):
            kept[name] = values
        elif form in ("rows", "sample"):
            kept[name] = values[_every(len(values), N_ROWS)]
        elif form == "proj":
            kept |= _thinned_products(name, values)
        elif form:
            kept[name] = values
        else:
            kept |= _reduced(case, base, values)
    return kept


def _every(n: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))


def _thinned_products(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Every n-th; samples of whole rays stay, as many rays as there is room for."""
    base = name.partition("__")[0]
    if values.ndim > 1:
        return {name: values[:N_RAYS]}
    step = -(-len(values) // N_PRODUCTS)
    return {name: values[::step], f"{base}__step": np.array(step)}


def _reduced(case: Case, name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Some rows of an array that is stored whole, and products of a few more."""
    rays = case.arrays.get("in_ray_rows")
    if rays is not None and len(values) == len(rays):
        chosen = _every(len(values), N_RAYS)
        return {f"{name}__rows": rays[chosen].astype(np.int32), f"{name}__sample": values[chosen]}
    if values.ndim == 5:
        values = np.moveaxis(values, 1, -1).reshape(-1, values.shape[1])
    elif values.ndim == 4 and name.endswith("volume"):
        values = np.moveaxis(values, 0, -1).reshape(-1, values.shape[0])
    chosen = _every(len(values), N_ROWS)
    found = {f"{name}__rows": chosen.astype(np.int32), f"{name}__sample": values[chosen]}
    if case.kind in ("transforms", "unit_cube") or values.ndim != 2:
        return found
    width = values.shape[1]
    r = seeded_normal(f"proj/{name}", (width,)).double().numpy() / np.sqrt(width)
    return found | _thinned_products(f"{name}__proj", (values.astype(np.float64) @ r).astype(np.float32))


def _one_channel(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Channels are pooled alike. The gradient goes: its check vector has the shape of all channels."""
    kept = {name: values for name, values in arrays.items() if not name.startswith("out_dense_mean_grad")}
    for name in ("in_feat", "out_dense_mean_values", "out_dense_mean_sum", "out_dense_mean_sumsq"):
        kept[name] = kept[name][:, :1]
    kept["out_dense_mean_shape"] = kept["out_dense_mean_shape"].copy()
    kept["out_dense_mean_shape"][1] = 1
    chosen = _every(len(kept["out_dense_mean_cells"]), 4_000)
    for name in ("out_dense_mean_cells", "out_dense_mean_values"):
        kept[name] = kept[name][chosen]
    return kept


def main(source: Path, target: Path) -> None:
    """Write the subset and say how large it is."""
    target.mkdir(parents=True, exist_ok=True)
    total = 0
    for case in all_cases(source):
        path = target / case.path.name
        np.savez_compressed(path, **compact(case))
        total += path.stat().st_size
    sys.stdout.write(f"{total / 1e6:.2f} MB\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
