"""Published `.pth` files: what model they hold, and the settings under which ours reads them.

The container is `{epoch, state_dict, optimizer, scheduler, scaler, best_metric_value}`; names and layouts of
the entries are ours, so that only prefixes are to be removed. The rest follows from names and shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from ponderv2.errors import CheckpointError
from ponderv2.training.weights import strip_wrappers

JOINT_CONDITIONS = ("ScanNet", "S3DIS", "Structured3D")
"""Order of the normalisations inside the published backbone."""
JOINT_EMBEDDINGS = ("Structured3D", "ScanNet", "S3DIS")
"""Order of the rows of the published `embedding_table`."""

VALID_INDEX: dict[str, tuple[int, ...]] = {
    "Structured3D": (*range(9), 11, *range(13, 22), 23, 25, 26, 33, 34, 35),
    "ScanNet": (*range(10), 11, 12, 13, 15, 20, 22, 24, 25, 27, 34),
    "S3DIS": (0, 1, 4, 5, 6, 7, 8, 10, 19, 29, 30, 31, 32),
}
"""Row of the 36 published class embeddings for each label of a dataset. The pairing for S3DIS is wrong in the
published code, and its weights were trained with it."""
N_JOINT_CLASSES = 36


@dataclass(frozen=True)
class OfficialVariant:
    """What the shapes in a published file tell."""

    task: Literal["pretext", "segmentation", "instances", "outdoor"]
    generation: Literal["2024", "2023", "none"]
    """Of the decoders. 2024: separate halves of the volume, no positions; 2023: shared volume, positions."""
    prompted: bool
    """SpUNet-v1m3: one normalisation per dataset."""
    in_channels: int
    n_conditions: int
    n_classes: int
    """Rows of the class embedding, or outputs of the last layer; 0 where there are none."""
    has_point_head: bool


def is_official(contents: Mapping[str, Any]) -> bool:
    """Whether a torch file has the published container."""
    state = contents.get("state_dict")
    return (
        isinstance(state, dict) and bool(state) and all(isinstance(value, Tensor) for value in state.values())
    )


def official_state(contents: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights, under our names. Raises CheckpointError for another container."""
    if not is_official(contents):
        raise CheckpointError("the file has no 'state_dict' of tensors")
    return strip_wrappers(contents["state_dict"])


def variant_of(state: Mapping[str, Tensor]) -> OfficialVariant:
    """Which of the published models the (unwrapped) weights belong to. Raises CheckpointError if none."""
    stem = state.get("backbone.conv_input.conv.weight", state.get("backbone.conv_input.0.weight"))
    if stem is None:
        raise CheckpointError("the file holds no sparse U-Net: 'backbone.conv_input' is missing")
    embedding = state.get("class_embedding")
    table = state.get("embedding_table.weight")
    final = state.get("backbone.final.weight", state.get("seg_head.weight"))
    classes = embedding if embedding is not None else final
    return OfficialVariant(
        task=_task(state),
        generation=_generation(state),
        prompted=any(name.startswith("backbone.conv_input.bn.bns.") for name in state),
        in_channels=int(stem.shape[-1]),
        n_conditions=0 if table is None else int(table.shape[0]),
        n_classes=0 if classes is None else int(classes.shape[0]),
        has_point_head="proj_head.weight" in state,
    )


def _task(state: Mapping[str, Tensor]) -> Literal["pretext", "segmentation", "instances", "outdoor"]:
    if any(name.startswith("renderer.") for name in state):
        return "pretext" if any(name.startswith("proj_net.encoders.") for name in state) else "outdoor"
    return "instances" if any(name.startswith("bias_head.") for name in state) else "segmentation"


def _generation(state: Mapping[str, Tensor]) -> Literal["2024", "2023", "none"]:
    reader = state.get("renderer.field.sdf_decoder.fc_c.0.weight")
    if reader is None:
        return "none"
    last = state.get("proj_net.final_conv.conv.weight", state.get("proj_net.final_conv.weight"))
    n_volume = 128 if last is None else int(last.shape[0])
    return "2023" if int(reader.shape[1]) == n_volume else "2024"


def pretext_settings(state: Mapping[str, Tensor], dataset: str = "ScanNet") -> dict[str, Any]:
    """`PretextConfig` as plain values under which a published indoor pre-training file loads and renders.

    `dataset` chooses the classes that are rendered, where the file knows those of several datasets.
    Raises CheckpointError for the other published models: their encoder can be loaded for fine-tuning.
    """
    variant = variant_of(state)
    if variant.task != "pretext":
        raise CheckpointError(
            f"the file holds a published {variant.task} model, not indoor pre-training",
            fix="ponder finetune --from FILE takes its encoder",
        )
    old = variant.generation == "2023"
    decoder = {"points_factor": 1.0 if old else 0.0}
    embeddings = state["class_embedding"]
    return {
        "encoder": _encoder(variant),
        "densify": {"align_with_sampling": False, "box": "cube"},
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
        "semantic": {
            "kind": "text",
            "n_classes": int(embeddings.shape[0]),
            "n_channels": int(embeddings.shape[1]),
            "valid_index": VALID_INDEX[dataset] if len(embeddings) == N_JOINT_CLASSES else None,
            "point_head": variant.has_point_head,
            "include_point_loss": False,
        },
        "conditions": list(JOINT_EMBEDDINGS[: variant.n_conditions] if variant.prompted else ("ScanNet",)),
    }


def encoder_settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """`EncoderConfig` as plain values of any published file. Raises CheckpointError if it has none."""
    return _encoder(variant_of(state))


def _encoder(variant: OfficialVariant) -> dict[str, Any]:
    if not variant.prompted:
        return {"kind": "sparse_unet", "in_channels": variant.in_channels}
    return {
        "kind": "prompted_sparse_unet",
        "in_channels": variant.in_channels,
        "conditions": list(JOINT_CONDITIONS[: variant.n_conditions]),
    }
