"""Published networks of semantic segmentation: settings, and names and layouts of their heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ponderv2.datasets.vocabulary import CLASS_NAMES, PUBLISHED_ROWS
from ponderv2.errors import CheckpointError
from ponderv2.tasks.published import (
    OfficialVariant,
    in_published_order,
    renumbered,
    settings_in_published_order,
    with_wrapped_encoder,
)
from ponderv2.training.published_checkpoints import JOINT_EMBEDDINGS, conditions_of_state

HEAD_PARTS = ("proj_head.", "class_embedding", "logit_scale", "seg_heads.")
"""Published beside the encoder, ours inside `head.`"""


def head_settings(state: Mapping[str, Tensor], variant: OfficialVariant) -> dict[str, Any]:
    """`HeadConfig` as plain values of a published network."""
    if variant.head == "final":
        return {"kind": "final", "n_classes": variant.n_classes}
    if variant.head == "decoupled":
        names = conditions_of_state(state)
        sizes = [int(state[f"seg_heads.{i}.weight"].shape[0]) for i in range(len(names))]
        return {"kind": "decoupled", "n_classes": dict(zip(names, sizes, strict=True))}
    rows, channels = state["class_embedding"].shape
    index = PUBLISHED_ROWS if rows == len(CLASS_NAMES) else {}
    known = {name: list(index[name]) for name in conditions_of_state(state) if name in index}
    return {"kind": "language", "n_texts": int(rows), "n_channels": int(channels), "valid_index": known}


def our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published (unwrapped) state under the names of our model."""
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith("backbone.final."):
            name = f"head.{name.removeprefix('backbone.')}"
        elif name.startswith(HEAD_PARTS):
            name = f"head.{name}"
        renamed[name] = value
    return renamed


def published_weights(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state under the published names. Raises CheckpointError for heads that were not published."""
    head = dict(config.get("head") or {})
    layers = tuple(head["n_classes"]) if head.get("kind") == "decoupled" else ()
    result = in_published_order(config, state)
    if set(layers) == set(JOINT_EMBEDDINGS):
        result = renumbered(result, "seg_heads.", [layers.index(name) for name in JOINT_EMBEDDINGS])
    result = _published_head(result)
    return with_wrapped_encoder(result) if head.get("kind") in ("final", "linear") else result


def published_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings under which the exported state is read back: a linear head is the published last layer."""
    result = settings_in_published_order(config)
    head = dict(result.get("head") or {})
    if head.get("kind") == "linear":
        result["head"] = {"kind": "final", "n_classes": head["n_classes"]}
    if head.get("kind") == "decoupled" and set(head["n_classes"]) == set(JOINT_EMBEDDINGS):
        layers = {name: head["n_classes"][name] for name in JOINT_EMBEDDINGS}
        result["head"] = {**head, "n_classes": layers}
    return result


def _published_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`head.*` as it is called, and laid out, in published files."""
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith("head.norm."):
            raise CheckpointError(
                "a linear probe normalises its features first, which no published model does",
                fix="export a fine-tuned model, or --format safetensors",
            )
        if name.startswith("head.final."):
            name = f"backbone.{name.removeprefix('head.')}"
        elif name.startswith("head.linear."):
            name = f"backbone.final.{name.removeprefix('head.linear.')}"
            value = _pointwise_kernel(value) if name.endswith("weight") else value
        renamed[name.removeprefix("head.")] = value
    return renamed


def _pointwise_kernel(weight: Tensor) -> Tensor:
    """A linear weight [out, in] as the 1x1x1 kernel [out, 1, 1, 1, in] whose memory is read as [in, out]."""
    n_out, n_in = weight.shape
    return weight.T.contiguous().reshape(n_out, 1, 1, 1, n_in)
