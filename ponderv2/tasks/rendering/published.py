"""Published indoor pre-training: the settings under which its files load and render."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ponderv2.datasets.vocabulary import CLASS_NAMES, PUBLISHED_ROWS
from ponderv2.errors import CheckpointError
from ponderv2.tasks.published import OfficialVariant, variant_of
from ponderv2.training.published_checkpoints import conditions_of_state, encoder_settings


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
