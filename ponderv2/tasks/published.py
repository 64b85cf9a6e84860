"""Published weights as whole models of ours: their settings, their names in either spelling, their points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ponderv2.datasets.vocabulary import CLASS_NAMES, PUBLISHED_ROWS
from ponderv2.errors import CheckpointError
from ponderv2.training.published_checkpoints import (
    JOINT_CONDITIONS,
    JOINT_EMBEDDINGS,
    conditions_of_state,
    encoder_settings,
    is_pooled,
    stem_of,
)

PUBLISHED_KINDS = ("pretext", "segmentation", "instances", "encoder")
ENCODER_PREFIXES = ("backbone.", "embedding_table.")
"""Of an encoder alone."""
HEAD_PARTS = ("proj_head.", "class_embedding", "logit_scale", "seg_heads.")
"""Published beside the encoder, ours inside `head.`"""
IGNORED_CLASSES = {200: (0, 2)}
"""Wall and floor, where they are not the classes 0 and 1: they have no instances."""


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


def model_settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Settings of the whole model in a published file (unwrapped), with its `kind`; of outdoor pre-training
    and of files without a head those of the encoder alone.

    Raises CheckpointError for classifiers of scenes.
    """
    variant = variant_of(state)
    if variant.task == "pretext":
        return pretext_settings(state)
    if variant.pooled:
        raise CheckpointError(
            "the file holds a classifier of scenes, of which only the encoder is known",
            fix="ponder finetune --from FILE takes its encoder",
        )
    kind = "encoder" if variant.task == "outdoor" else variant.task
    settings: dict[str, Any] = {"kind": kind, "encoder": encoder_settings(state)}
    if variant.prompted:
        settings["conditions"] = list(conditions_of_state(state))
    if variant.task == "instances":
        ignored = list(IGNORED_CLASSES.get(variant.n_classes, (0, 1)))
        return {**settings, "n_classes": variant.n_classes, "ignored_classes": ignored}
    if kind == "encoder":
        return settings
    return {**settings, "head": _head_settings(state, variant)}


def _head_settings(state: Mapping[str, Tensor], variant: OfficialVariant) -> dict[str, Any]:
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


def pretext_settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """`PretextConfig` as plain values under which a published indoor pre-training file loads and renders.

    Raises CheckpointError for the other published models.
    """
    variant = variant_of(state)
    if variant.task != "pretext":
        raise CheckpointError(f"the file holds a published {variant.task} model, not indoor pre-training")
    old = variant.generation == "2023"
    decoder = {"points_factor": 1.0 if old else 0.0}
    conditions, table = conditions_of_state(state), state.get("embedding_table.weight")
    return {
        "kind": "pretext",
        "encoder": encoder_settings(state),
        "lift": {"kind": "densify", "align_with_sampling": False},
        "projection": {"kind": "unet3d", "out_channels": 128},
        "renderer": {
            "limits": {"kind": "box"},
            "clip_distance_per_scene": True,
            "field": {
                "sdf": {"n_blocks": 1, **decoder},
                "color": {"n_blocks": 0, **decoder},
                "semantic": {"n_blocks": 0, **decoder},
                "share_volume": old,
                "gradient_in_volume_units": True,
                "clamp_points": not old,
            },
            "sampler": {"kind": "neus", "normalise_points": False},
        },
        "losses": {"color_of_misses": True, "supervise_class_zero": False},
        "semantic": _semantic(state, variant, conditions),
        "conditions": list(conditions),
        **({} if table is None else {"context_channels": int(table.shape[1])}),
    }


def _semantic(
    state: Mapping[str, Tensor], variant: OfficialVariant, conditions: tuple[str, ...]
) -> dict[str, Any] | None:
    embeddings = state.get("class_embedding")
    if embeddings is None:  # trained without labels
        return None
    joint = len(embeddings) == len(CLASS_NAMES)
    return {
        "kind": "text",
        "n_classes": int(embeddings.shape[0]),
        "n_channels": int(embeddings.shape[1]),
        "valid_index": {name: list(PUBLISHED_ROWS[name]) for name in conditions} if joint else None,
        "point_head": variant.has_point_head,
        "include_point_loss": False,
    }


def our_names(state: Mapping[str, Tensor], task: str | None = None) -> dict[str, Tensor]:
    """A published (unwrapped) state under the names of our models; `task` where it is known."""
    task = task or variant_of(state).task
    if task == "outdoor":  # its renderer has no counterpart here
        return {name: value for name, value in state.items() if name.startswith(ENCODER_PREFIXES)}
    if task != "segmentation":
        return dict(state)
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith("backbone.final."):
            name = f"head.{name.removeprefix('backbone.')}"
        elif name.startswith(HEAD_PARTS):
            name = f"head.{name}"
        renamed[name] = value
    return renamed


def published_names(kind: str, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of one of our models under the published names, rows in the published order of datasets.

    Args:
        kind: pretext, segmentation, instances or encoder.
        config: The settings of the model as plain values.
        state: Its parameters and buffers.

    Raises:
        CheckpointError: nothing that was published looks like this model.
    """
    if kind not in PUBLISHED_KINDS:
        raise CheckpointError(f"a model of kind '{kind}' has no published form")
    state = _published_order(config, state)
    if kind in ("pretext", "encoder"):
        return dict(state)
    head = dict(config.get("head") or {})
    wraps = "embedding_table.weight" in state and (
        kind == "instances" or head.get("kind") in ("final", "linear")
    )
    if kind == "segmentation":
        state = _published_head(state)
    if not wraps:
        return dict(state)
    return {
        f"backbone.{name}" if name.startswith(ENCODER_PREFIXES) else name: value
        for name, value in state.items()
    }


def published_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of one of our models under which its exported state is read back (`our_names`).

    The datasets stand in the published order, and a linear head is the published last layer.
    """
    result = dict(config)
    encoder, head = dict(result.get("encoder") or {}), dict(result.get("head") or {})
    norms = tuple(encoder.get("conditions") or ())
    if set(tuple(result.get("conditions") or norms)) == set(JOINT_EMBEDDINGS):
        result["conditions"] = list(JOINT_EMBEDDINGS)
    if set(norms) == set(JOINT_CONDITIONS):
        result["encoder"] = {**encoder, "conditions": list(JOINT_CONDITIONS)}
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


def _published_order(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rows of the embedding table and normalisations of the three datasets in the published order."""
    encoder = dict(config.get("encoder") or {})
    norms = tuple(encoder.get("conditions") or ())
    table = tuple(config.get("conditions") or norms)
    head = dict(config.get("head") or {})
    layers = tuple(head["n_classes"]) if head.get("kind") == "decoupled" else ()
    result = dict(state)
    if set(table) == set(JOINT_EMBEDDINGS) and "embedding_table.weight" in result:
        rows = torch.tensor([table.index(name) for name in JOINT_EMBEDDINGS])
        result["embedding_table.weight"] = result["embedding_table.weight"][rows]
    if set(norms) == set(JOINT_CONDITIONS):
        result = _renumbered(result, ".bns.", [norms.index(name) for name in JOINT_CONDITIONS])
    if set(layers) == set(JOINT_EMBEDDINGS):
        result = _renumbered(result, "seg_heads.", [layers.index(name) for name in JOINT_EMBEDDINGS])
    return result


def _renumbered(state: Mapping[str, Tensor], mark: str, source: list[int]) -> dict[str, Tensor]:
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
