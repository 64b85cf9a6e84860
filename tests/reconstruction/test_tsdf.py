"""Fusion of images of a room whose walls are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ponderv2.errors import SceneError
from ponderv2.reconstruction.config import TsdfConfig
from ponderv2.reconstruction.fusion import fuse_frames
from tests.scenes.closed_form_room import SIZE, write_store

COARSE = TsdfConfig(voxel_size=0.05, truncation=0.2, min_weight=0)


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("store"), n_scenes=1).read("room0").frames


def test_the_fused_surface_lies_on_the_walls(frames):
    mesh = fuse_frames(frames, COARSE)
    assert len(mesh.faces) > 1000
    vertices = mesh.vertices.numpy()
    off = np.minimum(np.abs(vertices), np.abs(vertices - SIZE)).min(axis=1)
    assert np.median(off) < 0.01
    assert np.quantile(off, 0.95) < 0.05


def test_the_fused_surface_has_the_colours_of_the_walls(frames):
    mesh = fuse_frames(frames, COARSE)
    assert mesh.colors is not None
    truth = (mesh.vertices / torch.tensor(SIZE).float()).clamp(0, 1)
    assert (mesh.colors - truth).abs().median() < 0.02


def test_frames_without_depth_within_reach_are_an_error_with_advice(frames):
    with pytest.raises(SceneError, match="no frame") as caught:
        fuse_frames(frames, TsdfConfig(max_depth=0.1))
    assert caught.value.fix is not None and "max_depth" in caught.value.fix
