"""Published pre-training, indoors and outdoors: the settings under which its files load and render."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ponderv2.datasets.vocabulary import CLASS_NAMES, PUBLISHED_ROWS
from ponderv2.errors import CheckpointError
from ponderv2.tasks.published import OfficialVariant, variant_of
from ponderv2.training.published_checkpoints import conditions_of_state, encoder_settings


def pretext_settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """`PretextConfig` as plain values under which a published pre-training file loads and renders.

    Raises CheckpointError for the other published models.
    """
    variant = variant_of(state)
    if variant.task == "outdoor":
        return _outdoor(state)
    if variant.task != "pretext":
        raise CheckpointError(f"the file holds a published {variant.task} model, not pre-training")
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


OUTDOOR_RANGE = {"lower": [-54.0, -54.0, -5.0], "upper": [54.0, 54.0, 3.0], "cells": [180, 180, 5]}
"""Metres around the LiDAR of nuScenes."""


def _outdoor(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """PonderOutdoor-v2: widths from the shapes, the range of its only data set."""
    field = "renderer.field."
    sdf = _decoder(state, f"{field}sdf_decoder.")
    color, semantic = (
        _decoder(state, f"{field}{name}_decoder.") if f"{field}{name}_decoder.fc_p.weight" in state else None
        for name in ("rgb", "semantic")
    )
    projection = state.get("proj_net.conv.0.weight")
    last = state.get(f"{field}sdf_decoder.lin{sdf['n_blocks']}.weight")
    if projection is None or last is None:
        raise CheckpointError("the published outdoor model in the file is not whole")
    token, embeddings = state.get("mtoken"), state.get("class_embedding")
    return {
        "kind": "pretext",
        "encoder": encoder_settings(state),
        "mask": None if token is None else {"block_size": 8, "ratio": 0.8},
        "frame": {"kind": "range", **OUTDOOR_RANGE, "stretch": True},
        "lift": {"kind": "densify", "corners_are_centres": True},
        "projection": {"kind": "conv3d", "out_channels": int(projection.shape[0])},
        "renderer": {
            "clip_distance_per_scene": True,
            "field": {
                "sdf": sdf,
                "color": color,
                **({} if semantic is None else {"semantic": semantic}),
                "geometry_channels": int(last.shape[0]) - 1,
                "share_volume": True,
            },
            "sampler": {"kind": "neus", "initial": {"n_samples": 72}, "n_importance": 24},
        },
        "losses": {"color": 0.0 if color is None else 10.0, "depth": 10.0, **NO_OTHER_LOSSES},
        "semantic": None
        if embeddings is None
        else {
            "kind": "text",
            "n_classes": int(embeddings.shape[0]),
            "n_channels": int(embeddings.shape[1]),
        },
    }


def outdoor_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights, and the temperature of the point head, which the published outdoor model lacks."""
    if "class_embedding" not in state:
        return dict(state)
    return {**state, LOGIT_SCALE: state["class_embedding"].new_tensor(100.0).log()}


LOGIT_SCALE = "logit_scale"
NO_OTHER_LOSSES = {"sdf": 0.0, "free_space": 0.0, "eikonal": 0.0, "truncation": 0.01}


def _decoder(state: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    """Width and depth of a decoder, and that it reads positions."""
    n_layers = sum(name.startswith(f"{prefix}fc_c.") and name.endswith(".weight") for name in state)
    hidden = int(state[f"{prefix}fc_p.weight"].shape[0])
    return {"hidden": hidden, "n_blocks": n_layers - 1, "points_factor": 1.0}


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
