"""Published `.pth` files: their container and their encoder, by the names and shapes of the entries alone.

The container is `{epoch, state_dict, optimizer, scheduler, scaler, best_metric_value}`; names and layouts of
the encoder, the projection and the renderer are ours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ponderv2.data.config import FEATURE_CHANNELS
from ponderv2.errors import CheckpointError, PresetError
from ponderv2.training.weights import strip_wrappers

JOINT_CONDITIONS = ("ScanNet", "S3DIS", "Structured3D")
"""Order of the normalisations inside the published backbone."""
JOINT_EMBEDDINGS = ("Structured3D", "ScanNet", "S3DIS")
"""Order of the rows of the published `embedding_table`, and of the layers of decoupled heads."""
CONTAINERS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "weights")
"""Under which programs keep the weights; the first is the published one."""
_STEM = re.compile(r"(.*?)conv_input\.(?:0|conv)\.weight$")


def weights_in(contents: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """The tensors of a file of another program, names as they stand there; None where it holds no weights.

    In the published container (`state_dict`), in that of other programs, or bare: a `state_dict` as it is.
    """
    for place in (*(contents.get(name) for name in CONTAINERS), contents):
        tensors = _tensors(place)
        if tensors and (place is not contents or any("conv_input" in name for name in tensors)):
            return tensors
    return None


def _tensors(place: Any) -> dict[str, Tensor]:
    if not isinstance(place, Mapping):
        return {}
    return {str(name): value for name, value in place.items() if isinstance(value, Tensor)}


def official_state(contents: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights without wrappers: `backbone.*` beside `renderer.*`, `proj_head.*`, ...

    Raises CheckpointError for a file without weights, or with several encoders.
    """
    weights = weights_in(contents)
    if weights is None:
        raise CheckpointError("the file has no 'state_dict' of tensors")
    return _with_backbone(strip_wrappers(weights))


def _with_backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The one encoder of the file as `backbone.*`, with whatever before it: `model.backbone.`, `encoder.`"""
    stems = {match[1] for match in map(_STEM.match, state) if match is not None}
    if len(stems) > 1:
        raise CheckpointError(
            f"the file holds several encoders: {', '.join(sorted(stem or 'bare' for stem in stems))}",
            fix="a file with the weights of one of them",
        )
    stem = next(iter(stems), "backbone.")
    if stem == "backbone.":
        return dict(state)
    if stem.endswith(".backbone."):
        outer = stem.removesuffix("backbone.")
        return {name.removeprefix(outer): value for name, value in state.items()}
    return {
        f"backbone.{name.removeprefix(stem)}" if name.startswith(stem) else name: value
        for name, value in state.items()
    }


def is_pooled(state: Mapping[str, Tensor]) -> bool:
    """Whether the encoder has no decoder: it classifies whole scenes."""
    deep = any(name.startswith("backbone.enc.") for name in state)
    return deep and not any(name.startswith("backbone.dec.") for name in state)


def stem_of(state: Mapping[str, Tensor]) -> Tensor:
    """The first kernel of the encoder, [out, k, k, k, in]. Raises CheckpointError where there is none."""
    stem = state.get("backbone.conv_input.conv.weight", state.get("backbone.conv_input.0.weight"))
    if stem is None:
        raise CheckpointError(
            "the file holds no sparse U-Net: 'backbone.conv_input' is missing",
            fix="give the folder of a run, or published weights with an encoder",
        )
    return stem


def conditions_of_state(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Datasets in the order of the rows of the embedding table; made-up names where there are not three."""
    table = state.get("embedding_table.weight")
    n_rows = 0 if table is None else int(table.shape[0])
    if n_rows == len(JOINT_EMBEDDINGS):
        return JOINT_EMBEDDINGS
    return ("ScanNet",) if n_rows == 1 else tuple(f"dataset {i}" for i in range(n_rows))


def encoder_settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """`EncoderConfig` as plain values of any published file, widths and depths read from its shapes.

    SpUNet-v1m2 cannot be told from v1m1 and is read as such. Raises CheckpointError if there is no encoder.
    """
    settings: dict[str, Any] = {"in_channels": int(stem_of(state).shape[-1]), **_widths(state)}
    if is_pooled(state):
        settings["pool_scenes"] = True
    if "backbone.conv_input.conv.weight" not in state:
        return {"kind": "sparse_unet", **settings}
    adaptive = state.get("backbone.conv_input.bn.modulation.1.weight")
    norms = _count(state, r"backbone\.conv_input\.bn\.bns\.(\d+)\.")
    decoupled = norms > 0
    names = JOINT_CONDITIONS if norms == len(JOINT_CONDITIONS) else tuple(sorted(conditions_of_state(state)))
    first = "backbone.conv_input.bn.bns.0.weight" if decoupled else "backbone.conv_input.bn.bn.weight"
    return {
        "kind": "prompted_sparse_unet",
        **settings,
        "conditions": list(names),
        "context_channels": 256 if adaptive is None else int(adaptive.shape[1]),
        "norm_decouple": decoupled,
        "norm_adaptive": adaptive is not None,
        "norm_affine": first in state,
    }


def _widths(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Channels and blocks of every stage; empty where the file holds only a stem."""
    n_stages = _count(state, r"backbone\.enc\.(\d+)\.")
    if not n_stages:
        return {}
    down = [_stage(state, "enc", s) for s in range(n_stages)]
    up = [_stage(state, "dec", s) for s in reversed(range(n_stages))] if not is_pooled(state) else down[::-1]
    return {
        "base_channels": int(stem_of(state).shape[0]),
        "channels": [width for width, _ in (*down, *up)],
        "layers": [depth for _, depth in (*down, *up)],
    }


def _stage(state: Mapping[str, Tensor], side: str, number: int) -> tuple[int, int]:
    """Channels and blocks. Raises CheckpointError where a stage is missing."""
    weight = state.get(f"backbone.{side}.{number}.block0.conv1.weight")
    if weight is None:
        raise CheckpointError(f"the encoder in the file is not whole: '{side}.{number}' is missing")
    return int(weight.shape[0]), _count(state, rf"backbone\.{side}\.{number}\.block(\d+)\.")


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """One more than the largest number in the names that fit; 0 where none does."""
    compiled = re.compile(pattern)
    found = [int(match[1]) for match in map(compiled.match, state) if match is not None]
    return max(found) + 1 if found else 0


@dataclass(frozen=True)
class PointChoice:
    """What the user says of the points of a file that does not say it itself."""

    voxel_size: float | None = None
    """Metres."""
    inputs: tuple[str, ...] | None = None
    """Names as in `data.features`."""

    def __post_init__(self) -> None:
        """Raises PresetError for inputs that there are not, and for sizes that are none."""
        if self.inputs is not None and not self.inputs:
            raise PresetError("an encoder without inputs has nothing to see", fix="--inputs color,normal")
        for name in self.inputs or ():
            if name not in FEATURE_CHANNELS:
                known = ", ".join(FEATURE_CHANNELS)
                raise PresetError(f"'{name}' is not an input of an encoder", fix=f"--inputs out of {known}")
        if self.voxel_size is not None and not 0 < self.voxel_size < math.inf:
            raise PresetError(f"a voxel has no size of {self.voxel_size} m", fix="--voxel-size 0.02")

    @property
    def answers(self) -> bool:
        """Whether there is anything to report."""
        return self.voxel_size is not None or self.inputs is not None

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to assume."""
        return self.voxel_size is not None and self.inputs is not None

    def applied(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The settings with what was chosen in its place."""
        result = dict(data)
        if self.voxel_size is not None:
            result["voxel"] = {**dict(result.get("voxel") or {}), "size": self.voxel_size}
        if self.inputs is not None:
            result["features"] = list(self.inputs)
        return result


def point_choice(voxel_size: float | None, inputs: str | None) -> PointChoice:
    """From the options of a command; `inputs` are names with commas between them. Raises PresetError."""
    names = None if inputs is None else tuple(name.strip() for name in inputs.split(",") if name.strip())
    return PointChoice(voxel_size, names)
