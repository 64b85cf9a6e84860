"""Meshes of a small room through the workflow, measured against its walls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from ponderv2.errors import CheckpointError, OutputError, SceneError
from ponderv2.geometry.meshes import Mesh
from ponderv2.reconstruction.meshes import read_mesh, write_mesh
from ponderv2.workflows import reconstruct
from ponderv2.workflows.config import ReconstructConfig
from tests.scenes.closed_form_room import SIZE
from tests.workflows.test_render import REFINE, checkpoint, store  # noqa: F401 - fixtures


def config(**values) -> ReconstructConfig:
    return ReconstructConfig.model_validate(values)


@pytest.fixture(scope="module")
def walls(tmp_path_factory):
    """The room as a mesh of two triangles per wall, which no image sees whole."""
    box = trimesh.creation.box(SIZE).apply_translation(SIZE / 2)
    box.invert()  # seen from inside
    path = tmp_path_factory.mktemp("walls") / "walls.ply"
    write_mesh(path, Mesh(torch.tensor(box.vertices).float(), torch.tensor(box.faces).long()))
    return path


def test_a_refined_mesh_is_the_room(store, checkpoint, walls, tmp_path):  # noqa: F811
    result = reconstruct.run(
        config(resolution=64, refine=REFINE, compared_points=20000),
        scene="room0",
        out=tmp_path / "room.glb",
        checkpoint=checkpoint,
        scenes=store,
        reference=walls,
    )
    assert result.metrics is not None and result.refined is not None and result.refined.is_file()
    assert result.metrics.precision > 0.95
    assert result.metrics.recall > 0.6  # two of the six images were held out
    assert result.metrics.normal_consistency > 0.9
    mesh = read_mesh(tmp_path / "room.glb")
    assert (len(mesh.vertices), len(mesh.faces)) == (result.n_vertices, result.n_faces)
    colors = trimesh.load(tmp_path / "room.glb", force="mesh").visual.vertex_colors[:, :3] / 255.0
    assert np.abs(colors - (mesh.vertices.numpy() / SIZE).clip(0, 1)).mean() < 0.1


def test_tsdf_needs_no_model(store, walls, tmp_path):  # noqa: F811
    tsdf = {"voxel_size": 0.05, "truncation": 0.2, "min_weight": 0}
    result = reconstruct.run(
        config(method="tsdf", tsdf=tsdf, compared_points=20000),
        scene="room0",
        out=tmp_path / "room.obj",
        scenes=store,
        reference=walls,
    )
    assert result.metrics is not None and result.metrics.f_score > 0.9
    assert result.refined is None and (tmp_path / "room.obj").is_file()


def test_an_untrained_model_has_no_surface_and_says_so(store, checkpoint, tmp_path):  # noqa: F811
    with pytest.raises(SceneError, match=r"zero crossing|observed") as caught:
        reconstruct.run(
            config(resolution=24), scene="room0", out=tmp_path / "m.ply", checkpoint=checkpoint, scenes=store
        )
    assert caught.value.fix is not None and "--refine" in caught.value.fix
    assert not (tmp_path / "m.ply").exists()


def test_mistakes_are_found_before_the_work(store, tmp_path):  # noqa: F811
    with pytest.raises(CheckpointError, match="model is needed"):
        reconstruct.run(config(), scene="room0", out=tmp_path / "m.ply", scenes=store)
    with pytest.raises(OutputError, match=r"m\.stl"):
        reconstruct.run(config(), scene="room0", out=tmp_path / "m.stl", scenes=store)
    with pytest.raises(SceneError, match=r"none\.ply"):
        reconstruct.run(
            config(method="tsdf"),
            scene="room0",
            out=tmp_path / "m.ply",
            scenes=store,
            reference=tmp_path / "none.ply",
        )
