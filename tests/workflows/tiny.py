"""Settings small enough to train in a test, on rooms that are rendered in closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ponderv2.workflows.config import FinetuneConfig, PretrainConfig
from tests.scenes.closed_form_room import write_store

ENCODER = {
    "kind": "sparse_unet",
    "in_channels": 6,
    "base_channels": 8,
    "channels": [8, 8, 8, 8],
    "layers": [1, 1, 1, 1],
    "norm_momentum": 0.1,
}
DATA = {
    "voxel": {"size": 0.2},
    "augment": [{"kind": "centre_shift"}, {"kind": "flip"}],
    "cache_megabytes": 64,
}
TRAINING = {
    "steps": 4,
    "batch_size": 2,
    "save_every": 2,
    "evaluate_every": 2,
    "evaluate_scenes": 1,
    "evaluate_width": 16,
    "tensorboard": False,
    "device": "cpu",
    "optimiser": {"kind": "adamw", "rate": 3.0e-3},
}


def rooms(folder: Path) -> Path:
    """Two rooms to train on and two to validate, with held-out images."""
    write_store(folder, n_scenes=2, n_points=1500, splits=("train", "val"))
    return folder


def pretrain_config(**training: Any) -> PretrainConfig:
    """A volume of 8 x 8 x 8 cells and 16 samples a ray."""
    return PretrainConfig.model_validate(
        {
            "data": {**DATA, "views": {"n_views": 2, "n_pixels": 24}, "validation_views": 1},
            "model": {
                "encoder": ENCODER,
                "frame": {"kind": "cube", "cells": [8, 8, 8]},
                "projection": {"kind": "unet3d", "f_maps": 8, "n_levels": 2, "out_channels": 8},
                "renderer": {
                    "field": {"sdf": {"hidden": 8}, "color": {"hidden": 8}, "geometry_channels": 4},
                    "sampler": {"kind": "neus", "initial": {"n_samples": 10}, "n_importance": 6},
                },
            },
            "training": TRAINING | training,
        }
    )


def finetune_config(**training: Any) -> FinetuneConfig:
    """Three classes: wall, floor, ceiling."""
    return FinetuneConfig.model_validate(
        {
            "data": {**DATA, "sphere_crop": None, "mix_probability": 0.5},
            "model": {"kind": "segmentation", "encoder": ENCODER, "head": {"kind": "linear", "n_classes": 3}},
            "training": TRAINING | training,
        }
    )
