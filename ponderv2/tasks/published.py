"""Published weights: which model they belong to, and what all models share of their names and order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ponderv2.training.published_checkpoints import (
    JOINT_CONDITIONS,
    JOINT_EMBEDDINGS,
    is_pooled,
    stem_of,
)

ENCODER_PREFIXES = ("backbone.", "embedding_table.")
"""Of an encoder alone."""

TaskName = Literal["pretext", "segmentation", "instances", "outdoor", "encoder"]
HeadName = Literal["language", "decoupled", "final", "pointgroup", "none"]


@dataclass(frozen=True)
class OfficialVariant:
    """What the names and shapes in a published file tell."""

    task: TaskName
    """encoder: no head at all."""
    generation: Literal["2024", "2023", "none"]
    """Of the decoders. 2024: separate halves of the volume, no positions; 2023: shared volume, positions."""
    prompted: bool
    """SpUNet-v1m3: one normalisation per dataset. Otherwise v1m1 or v1m2, whose files look alike."""
    head: HeadName
    in_channels: int
    n_conditions: int
    n_classes: int
    """Rows of the class embedding, or outputs of the last layer; 0 where there are none."""
    has_point_head: bool
    pooled: bool = False
    """`cls_mode`: an encoder without decoder, which classifies whole scenes."""


def variant_of(state: Mapping[str, Tensor]) -> OfficialVariant:
    """Which of the published models the (unwrapped) weights belong to. Raises CheckpointError if none."""
    stem = stem_of(state)
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
        pooled=is_pooled(state),
    )


def _task(state: Mapping[str, Tensor], head: HeadName) -> TaskName:
    if any(name.startswith("renderer.") for name in state):
        return "pretext" if any(name.startswith("proj_net.encoders.") for name in state) else "outdoor"
    if head == "none":
        return "encoder"
    return "instances" if head == "pointgroup" else "segmentation"


def _head(state: Mapping[str, Tensor]) -> HeadName:
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


def _generation(state: Mapping[str, Tensor]) -> Literal["2024", "2023", "none"]:
    reader = state.get("renderer.field.sdf_decoder.fc_c.0.weight")
    if reader is None or not any(name.startswith("proj_net.encoders.") for name in state):
        return "none"
    last = state.get("proj_net.final_conv.conv.weight", state.get("proj_net.final_conv.weight"))
    n_volume = 128 if last is None else int(last.shape[0])
    return "2023" if int(reader.shape[1]) == n_volume else "2024"


def in_published_order(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rows of the embedding table and normalisations of the three datasets in the published order.

    `config`: the settings of the model as plain values.
    """
    norms = tuple(dict(config.get("encoder") or {}).get("conditions") or ())
    table = tuple(config.get("conditions") or norms)
    result = dict(state)
    if set(table) == set(JOINT_EMBEDDINGS) and "embedding_table.weight" in result:
        rows = torch.tensor([table.index(name) for name in JOINT_EMBEDDINGS])
        result["embedding_table.weight"] = result["embedding_table.weight"][rows]
    if set(norms) == set(JOINT_CONDITIONS):
        result = renumbered(result, ".bns.", [norms.index(name) for name in JOINT_CONDITIONS])
    return result


def settings_in_published_order(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a model whose exported state is read back: datasets stand in the published order."""
    result = dict(config)
    encoder = dict(result.get("encoder") or {})
    norms = tuple(encoder.get("conditions") or ())
    if set(tuple(result.get("conditions") or norms)) == set(JOINT_EMBEDDINGS):
        result["conditions"] = list(JOINT_EMBEDDINGS)
    if set(norms) == set(JOINT_CONDITIONS):
        result["encoder"] = {**encoder, "conditions": list(JOINT_CONDITIONS)}
    return result


def with_wrapped_encoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Encoder and prompts inside another `backbone.`, as in published models whose head knows no prompts."""
    if "embedding_table.weight" not in state:
        return dict(state)
    return {
        f"backbone.{name}" if name.startswith(ENCODER_PREFIXES) else name: value
        for name, value in state.items()
    }


def renumbered(state: Mapping[str, Tensor], mark: str, source: list[int]) -> dict[str, Tensor]:
    """Member i behind `mark` becomes what member source[i] was."""
    place = {old: new for new, old in enumerate(source)}
    result: dict[str, Tensor] = {}
    for name, value in state.items():
        before, found, after = name.partition(mark)
        if found:
            number, dot, rest = after.partition(".")
            name = f"{before}{mark}{place[int(number)]}{dot}{rest}"
        result[name] = value
    return result
