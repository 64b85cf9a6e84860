"""A trained model without the command line: encode, render, mesh."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ponderv2
from ponderv2.errors import CheckpointError
from ponderv2.models.config import PretextConfig
from ponderv2.models.pretext import PretextModel
from ponderv2.training.checkpoint import Checkpoint, save_checkpoint

MODEL = {
    "encoder": {"kind": "sparse_unet", "base_channels": 8, "channels": [8, 8], "layers": [1, 1]},
    "frame": {"kind": "cube", "cube_size": 4.0, "cells": [16, 16, 16], "box": "bounds"},
    "projection": {"kind": "conv3d", "out_channels": 8},
    "renderer": {
        "field": {
            "sdf": {"hidden": 8},
            "color": {"hidden": 8, "n_blocks": 0},
            "geometry_channels": 4,
            "share_volume": True,
        },
        "sampler": {"kind": "uniform", "n_samples": 16},
    },
}
DATA = {"voxel": {"size": 0.1}, "features": ["color", "normal"]}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A small model with random weights."""
    torch.manual_seed(0)
    config = PretextConfig.model_validate(MODEL)
    settings = {"model": config.model_dump(mode="json"), "data": DATA}
    path = tmp_path / "model.pth"
    save_checkpoint(path, Checkpoint("pretext", settings, PretextModel(config).state_dict()))
    return path


@pytest.fixture
def cloud() -> ponderv2.PointCloud:
    """A bumpy floor of 2 m x 2 m."""
    generator = torch.Generator().manual_seed(1)
    coord = torch.rand(2000, 3, generator=generator) * torch.tensor([2.0, 2.0, 0.3])
    color = torch.rand(2000, 3, generator=generator) * 255
    return ponderv2.PointCloud(coord, color, torch.tensor([0.0, 0.0, 1.0]).expand(2000, 3))


@pytest.fixture
def camera() -> ponderv2.Camera:
    """One metre above the middle of the floor, looking down."""
    down = torch.tensor([[1.0, 0, 0, -1.0], [0, -1.0, 0, 1.0], [0, 0, -1.0, 1.3], [0, 0, 0, 1.0]])
    intrinsics = torch.tensor([[10.0, 0, 5.5], [0, 10.0, 3.5], [0, 0, 1.0]])
    return ponderv2.Camera(intrinsics, down, width=12, height=8)


def test_every_point_has_a_feature_and_points_of_one_voxel_share_it(checkpoint, cloud):
    encoded = ponderv2.load(checkpoint).encode(cloud)
    cells = torch.floor((cloud.coord - cloud.coord.amin(0) * torch.tensor([0.0, 0.0, 1.0])) * 10)
    assert encoded.feature.shape == (2000, 8)
    assert len(torch.unique(encoded.feature, dim=0)) <= 1.3 * len(torch.unique(cells, dim=0))


def test_moving_cloud_and_camera_together_does_not_change_the_picture(checkpoint, cloud, camera):
    model = ponderv2.load(checkpoint)
    shift = torch.eye(4)
    shift[:3, 3] = torch.tensor([4.0, -8.0, 2.0])
    first = model.encode(cloud).render(camera)
    moved = replace(cloud, coord=cloud.coord + shift[:3, 3])
    second = model.encode(moved).render(camera.moved(shift))
    assert first.color.shape == (8, 12, 3) and first.depth.shape == (8, 12)
    torch.testing.assert_close(first.color, second.color, atol=2e-3, rtol=0)
    torch.testing.assert_close(first.depth, second.depth, atol=2e-2, rtol=0)


def test_the_chunk_size_does_not_change_the_picture(checkpoint, cloud, camera):
    encoded = ponderv2.load(checkpoint).encode(cloud)
    first, second = encoded.render(camera, chunk=96), encoded.render(camera, chunk=7)
    torch.testing.assert_close(first.color, second.color)


def test_a_missing_checkpoint_is_said_so(tmp_path):
    with pytest.raises(CheckpointError, match="nothing"):
        ponderv2.load(tmp_path / "nothing.pth")


def test_class_embeddings_are_those_of_the_checkpoint_when_their_file_is_gone(tmp_path):
    file = tmp_path / "rows.npy"
    np.save(file, np.arange(12, dtype=np.float32).reshape(3, 4) + 1)
    text = {"kind": "text", "n_classes": 3, "n_channels": 4, "embeddings": str(file)}
    losses = {"semantic_target": {"kind": "contrastive"}}
    config = PretextConfig.model_validate({**MODEL, "semantic": text, "losses": losses})
    model = PretextModel(config)
    settings = {"model": config.model_dump(mode="json"), "data": DATA}
    save_checkpoint(tmp_path / "model.pth", Checkpoint("pretext", settings, model.state_dict()))
    file.unlink()
    loaded = ponderv2.load(tmp_path / "model.pth").model
    assert torch.equal(loaded.class_embedding, model.class_embedding)


def test_a_published_file_without_its_embeddings_is_refused(tmp_path):
    names = ("backbone.conv_input.0.weight", "renderer.field.x", "proj_net.encoders.x")
    torch.save({"state_dict": {name: torch.zeros(1, 2) for name in names}}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"model\.pth"):
        ponderv2.load(tmp_path / "model.pth")


def test_point_settings_of_another_version_are_said_so(tmp_path):
    config = PretextConfig.model_validate(MODEL)
    settings = {"model": config.model_dump(mode="json"), "data": {"voxel": "large"}}
    save_checkpoint(
        tmp_path / "model.pth", Checkpoint("pretext", settings, PretextModel(config).state_dict())
    )
    with pytest.raises(CheckpointError, match="point settings"):
        ponderv2.load(tmp_path / "model.pth")
