"""Published `.pth` files: what model they hold, by the names and shapes of their entries alone.

The container is `{epoch, state_dict, optimizer, scheduler, scaler, best_metric_value}`; names and layouts of
the encoder, the projection and the renderer are ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from ponderv2.errors import CheckpointError
from ponderv2.training.weights import strip_wrappers

JOINT_CONDITIONS = ("ScanNet", "S3DIS", "Structured3D")
"""Order of the normalisations inside the published backbone."""
JOINT_EMBEDDINGS = ("Structured3D", "ScanNet", "S3DIS")
"""Order of the rows of the published `embedding_table`, and of the layers of decoupled heads."""
CONTAINERS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "weights")
"""Under which programs keep the weights; the first is the published one."""
_STEM = re.compile(r"(.*?)conv_input\.(?:0|conv)\.weight$")

Task = Literal["pretext", "segmentation", "instances", "outdoor", "encoder"]
Head = Literal["language", "decoupled", "final", "pointgroup", "none"]


@dataclass(frozen=True)
class OfficialVariant:
    """What the names and shapes in a published file tell."""

    task: Task
    """encoder: no head at all."""
    generation: Literal["2024", "2023", "none"]
    """Of the decoders. 2024: separate halves of the volume, no positions; 2023: shared volume, positions."""
    prompted: bool
    """SpUNet-v1m3: one normalisation per dataset. Otherwise v1m1 or v1m2, whose files look alike."""
    head: Head
    in_channels: int
    n_conditions: int
    n_classes: int
    """Rows of the class embedding, or outputs of the last layer; 0 where there are none."""
    has_point_head: bool
    pooled: bool = False
    """`cls_mode`: an encoder without decoder, which classifies whole scenes."""


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


def variant_of(state: Mapping[str, Tensor]) -> OfficialVariant:
    """Which of the published models the (unwrapped) weights belong to. Raises CheckpointError if none."""
    stem = state.get("backbone.conv_input.conv.weight", state.get("backbone.conv_input.0.weight"))
    if stem is None:
        raise CheckpointError("the file holds no sparse U-Net: 'backbone.conv_input' is missing")
    table = state.get("embedding_table.weight")
    head = _head(state)
    return OfficialVariant(
        task=_task(state, head),
        generation=_generation(state),
        prompted="backbone.conv_input.conv.weight" in state,
        head=head,
        in_channels=int(stem.shape[-1]),
        n_conditions=0 if table is None else int(table.shape[0]),
        n_classes=_n_classes(state),
        has_point_head="proj_head.weight" in state,
        pooled=_is_pooled(state),
    )


def _task(state: Mapping[str, Tensor], head: Head) -> Task:
    if any(name.startswith("renderer.") for name in state):
        return "pretext" if any(name.startswith("proj_net.encoders.") for name in state) else "outdoor"
    if head == "none":
        return "encoder"
    return "instances" if head == "pointgroup" else "segmentation"


def _head(state: Mapping[str, Tensor]) -> Head:
    if any(name.startswith("renderer.") for name in state):
        return "none"
    if any(name.startswith("bias_head.") for name in state):
        return "pointgroup"
    if "seg_heads.0.weight" in state:
        return "decoupled"
    if "class_embedding" in state and "proj_head.weight" in state:
        return "language"
    return "final" if "backbone.final.weight" in state else "none"


def _n_classes(state: Mapping[str, Tensor]) -> int:
    for name in ("class_embedding", "backbone.final.weight", "seg_head.weight"):
        if name in state:
            return int(state[name].shape[0])
    return 0


def _is_pooled(state: Mapping[str, Tensor]) -> bool:
    deep = any(name.startswith("backbone.enc.") for name in state)
    return deep and not any(name.startswith("backbone.dec.") for name in state)


def _generation(state: Mapping[str, Tensor]) -> Literal["2024", "2023", "none"]:
    reader = state.get("renderer.field.sdf_decoder.fc_c.0.weight")
    if reader is None or not any(name.startswith("proj_net.encoders.") for name in state):
        return "none"
    last = state.get("proj_net.final_conv.conv.weight", state.get("proj_net.final_conv.weight"))
    n_volume = 128 if last is None else int(last.shape[0])
    return "2023" if int(reader.shape[1]) == n_volume else "2024"


def conditions_of_state(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Datasets in the order of the rows of the embedding table; made-up names where there are not three."""
    n_rows = variant_of(state).n_conditions
    if n_rows == len(JOINT_EMBEDDINGS):
        return JOINT_EMBEDDINGS
    return ("ScanNet",) if n_rows == 1 else tuple(f"dataset {i}" for i in range(n_rows))


def encoder_settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """`EncoderConfig` as plain values of any published file, widths and depths read from its shapes.

    SpUNet-v1m2 cannot be told from v1m1 and is read as such. Raises CheckpointError if there is no encoder.
    """
    variant = variant_of(state)
    settings: dict[str, Any] = {"in_channels": variant.in_channels, **_widths(state)}
    if variant.pooled:
        settings["pool_scenes"] = True
    if not variant.prompted:
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
    stem = state.get("backbone.conv_input.conv.weight", state.get("backbone.conv_input.0.weight"))
    assert stem is not None
    down = [_stage(state, "enc", s) for s in range(n_stages)]
    up = [_stage(state, "dec", s) for s in reversed(range(n_stages))] if not _is_pooled(state) else down[::-1]
    return {
        "base_channels": int(stem.shape[0]),
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
