"""Golden cases: how they are found, what their inputs are, how their weights are made.

An input is stored, or given by a rule: seeded normal numbers. The rule stands in `meta` (`"inputs":
{"in_feat": {"shape": [10, 6], "seed": "feat", "scale": 0.5}}`), in arrays beside it (`in_feat__seed`,
`in_feat__shape`, `in_feat__scale`), in a text (`in_feat__rule`), or in the row of the array in the README.md
of the folder ("standard_normal(shape) seeded by 'feat', times 0.5").
"""

from __future__ import annotations

import hashlib
import json
import re
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
        """Title, salt and hyper-parameters; empty where the file has none."""
        return json.loads(str(self.arrays["meta"])) if "meta" in self.arrays else {}

    @property
    def config(self) -> dict[str, Any]:
        """Hyper-parameters under their official names."""
        return self.meta.get("config") or {}

    @cached_property
    def kind(self) -> str:
        """Which module of tests reads the case; `no meta` and `unknown` are read by none."""
        names = set(self.arrays)
        if "meta" not in names:
            return "no meta"
        if "type" in self.config:
            return KIND_OF_TYPE.get(self.config["type"], self.config["type"])
        if "criteria" in self.config and "backbone" not in self.config:
            return "segmentation_losses"
        if any(name.startswith("in_pred_masks") for name in names):
            return "instance_precision"
        if any(name.startswith("out_cube_") for name in names):
            return "unit_cube"
        if any(name.startswith(("out_center_shift", "out_grid_fnv", "out_grid_ravel")) for name in names):
            return "transforms"
        return "unknown"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Arrays that the case has, stored or by a rule; reduced ones under the name of what they reduce."""
        plain = [name.split("__")[0] for name in self.arrays if name != "meta"]
        return tuple(dict.fromkeys([*plain, *self.rules]))

    @cached_property
    def rules(self) -> dict[str, InputRule]:
        """Inputs that are given by a rule instead of stored."""
        found = readme_rules(self.path) | meta_rules(self.meta)
        for name in self.arrays:
            base, _, what = name.partition("__")
            if what in ("seed", "rule"):
                found[base] = array_rule(self.arrays, base)
        return {name: rule for name, rule in found.items() if name not in self.arrays}

    def __contains__(self, name: str) -> bool:
        """Whether an array is stored whole, or is an input given by a rule."""
        return name in self.arrays or name in self.rules

    def tensor(self, name: str) -> Tensor:
        """A stored or ruled array, integers as int64."""
        if name in self.rules:
            return self.rules[name].values(self.meta.get("salt", ""))
        array = self.arrays[name]
        if array.dtype.kind in "iu" and array.dtype != np.uint64:
            array = array.astype(np.int64)
        return torch.from_numpy(np.ascontiguousarray(array))

    def scalar(self, name: str) -> float:
        return float(self.arrays[name])


@dataclass(frozen=True)
class InputRule:
    """Seeded normal numbers that stand for an input: z * scale + shift."""

    shape: tuple[int, ...]
    seed: str
    scale: float = 1.0
    shift: float = 0.0
    salted: bool = False

    def values(self, salt: str) -> Tensor:
        z = seeded_normal((salt if self.salted else "") + self.seed, self.shape)
        return z * np.float32(self.scale) + np.float32(self.shift)


SEEDED = re.compile(
    r"standard_normal\((?P<inside>[^)]*\)?[^)]*)\).{0,40}?"
    r"seeded by (?P<salt>salt \+ )?['\"](?P<seed>[^'\"]+)['\"]"
)
NUMBER = r"(?P<number>[0-9.]+(?:e[+-]?[0-9]+)?)"
FACTORS = (
    re.compile(rf"(?:times|multiplied by|\*|scaled by)\s*{NUMBER}"),
    re.compile(rf"{NUMBER}\s*(?:\*|times)\s*standard_normal"),
)
DIVISOR = re.compile(rf"(?:divided by|/)\s*{NUMBER}")


def rule_of_text(text: str, shape: tuple[int, ...] | None, seed: str | None = None) -> InputRule | None:
    """A rule in words, "standard_normal(4x3) seeded by 'x', times 0.5"; None where the text is none."""
    found = SEEDED.search(text)
    if found is None:
        return None
    inside = tuple(int(one) for one in re.findall(r"\d+", found["inside"]))
    scale = 1.0
    for pattern in FACTORS:
        if factor := pattern.search(text):
            scale *= float(factor["number"])
            break
    if divisor := DIVISOR.search(text):
        scale /= float(divisor["number"])
    size = shape or inside
    return InputRule(size, seed or found["seed"], scale, salted=found["salt"] is not None) if size else None


def meta_rules(meta: dict[str, Any]) -> dict[str, InputRule]:
    """Rules in `meta`, under `inputs`, `rules` or `ruled`: dicts, or texts."""
    found: dict[str, InputRule] = {}
    for key in ("inputs", "rules", "ruled", "input_rules"):
        for name, entry in (meta.get(key) or {}).items():
            rule = rule_of_text(entry, None) if isinstance(entry, str) else _rule_of_dict(name, entry)
            if rule is not None:
                found[name] = rule
    return found


def _rule_of_dict(name: str, entry: dict[str, Any]) -> InputRule:
    return InputRule(
        tuple(entry["shape"]),
        entry.get("seed", entry.get("seeded_by", name)),
        float(entry.get("scale", entry.get("factor", entry.get("std", 1.0)))),
        float(entry.get("shift", entry.get("offset", entry.get("mean", 0.0)))),
        bool(entry.get("salted", False)),
    )


def array_rule(arrays: dict[str, np.ndarray], name: str) -> InputRule:
    """The rule in the arrays `NAME__seed`, `NAME__shape`, ... or in the text `NAME__rule`."""
    shape = (
        tuple(int(n) for n in np.atleast_1d(arrays[f"{name}__shape"])) if f"{name}__shape" in arrays else None
    )
    if f"{name}__rule" in arrays:
        text = str(arrays[f"{name}__rule"])
        rule = _rule_of_dict(name, json.loads(text)) if text.startswith("{") else rule_of_text(text, shape)
        assert rule is not None, f"{name}__rule is not understood: {text}"
        return rule
    assert shape is not None, f"{name} has a seed and no shape"
    scale, shift = (
        float(arrays.get(f"{name}__{what}", default)) for what, default in (("scale", 1), ("shift", 0))
    )
    return InputRule(shape, str(arrays[f"{name}__seed"]), scale, shift)


@lru_cache(maxsize=4)
def _readme(folder: Path) -> str:
    path = folder / "README.md"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def readme_rules(path: Path) -> dict[str, InputRule]:
    """Rules in the table of a case in the README.md beside it: `| \\`in_x\\` | 4x3 | float32 | ... |`."""
    sections = re.split(r"^### `", _readme(path.parent), flags=re.MULTILINE)
    section = next((one for one in sections if one.startswith(f"{path.name}`")), "")
    found: dict[str, InputRule] = {}
    for row in section.splitlines():
        cells = [cell.strip() for cell in row.strip("| ").split("|")]
        if len(cells) < 4 or not cells[0].startswith("`in_"):
            continue
        shape = tuple(int(n) for n in re.findall(r"\d+", cells[1]))
        rule = rule_of_text(cells[3], shape)
        if rule is not None:
            found[cells[0].strip("`")] = rule
    return found


@lru_cache(maxsize=4)
def _all_cases(folder: Path) -> tuple[Case, ...]:
    return tuple(Case(path) for path in sorted(folder.glob("*.npz")))


def all_cases(folder: Path) -> tuple[Case, ...]:
    """Every `.npz` of a folder, whatever it is."""
    return _all_cases(folder) if folder.is_dir() else ()


def find_cases(folder: Path, kind: str) -> list[Case]:
    """All cases of one kind, by content and not by file name."""
    return [case for case in all_cases(folder) if case.kind == kind]


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
