"""Files read back by trimesh and Open3D."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from ponderv2.errors import OutputError, SceneError
from ponderv2.geometry.meshes import Mesh
from ponderv2.io.files import write_bytes
from ponderv2.io.ply import read_ply
from ponderv2.reconstruction.fusion import load_open3d
from ponderv2.reconstruction.meshes import check_mesh_path, read_mesh, write_mesh


@pytest.fixture
def mesh(rng):
    ball = trimesh.creation.icosphere(subdivisions=2)
    vertices = torch.tensor(ball.vertices).float()
    return Mesh(vertices, torch.tensor(ball.faces).long(), torch.rand(len(vertices), 3, generator=rng))


@pytest.mark.parametrize("suffix", ["ply", "obj", "glb"])
def test_trimesh_reads_geometry_and_colours(tmp_path, mesh, suffix):
    path = tmp_path / f"ball.{suffix}"
    write_mesh(path, mesh)
    read = trimesh.load(path, force="mesh", process=False)
    assert np.allclose(read.vertices, mesh.vertices.numpy(), atol=1e-5)
    assert np.array_equal(read.faces, mesh.faces.numpy())
    assert np.allclose(read.visual.vertex_colors[:, :3] / 255.0, mesh.colors.numpy(), atol=0.003)


def test_open3d_reads_colours_and_normals_of_a_ply(tmp_path, mesh):
    open3d = load_open3d()

    write_mesh(tmp_path / "ball.ply", mesh)
    read = open3d.io.read_triangle_mesh(str(tmp_path / "ball.ply"))
    assert np.allclose(np.asarray(read.vertices), mesh.vertices.numpy(), atol=1e-6)
    assert np.allclose(np.asarray(read.vertex_colors), mesh.colors.numpy(), atol=0.003)
    assert (np.asarray(read.vertex_normals) * mesh.vertices.numpy()).sum(-1).min() > 0.99


@pytest.mark.parametrize("suffix", ["ply", "obj", "glb"])
def test_read_mesh_undoes_write_mesh(tmp_path, mesh, suffix):
    write_mesh(tmp_path / f"ball.{suffix}", mesh)
    read = read_mesh(tmp_path / f"ball.{suffix}")
    assert torch.allclose(read.vertices, mesh.vertices, atol=1e-5)
    assert torch.equal(read.faces, mesh.faces)


def test_an_unknown_ending_is_refused_early(tmp_path):
    with pytest.raises(OutputError) as caught:
        check_mesh_path(tmp_path / "mesh.stl")
    assert caught.value.fix is not None and "mesh.ply" in caught.value.fix


def test_a_place_that_cannot_be_written_is_refused_early_and_late(tmp_path, mesh):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder.ply").mkdir()
    for path in (tmp_path / "file" / "mesh.ply", tmp_path / "folder.ply"):
        with pytest.raises(OutputError):
            check_mesh_path(path)
    with pytest.raises(OutputError, match="cannot write"):
        write_bytes(tmp_path / "file" / "mesh.ply", b"")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_failed_write_leaves_the_old_file(tmp_path, mesh, monkeypatch):
    path = tmp_path / "ball.ply"
    write_mesh(path, mesh)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_mesh(path, mesh)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_and_missing_references_are_named(tmp_path):
    broken = tmp_path / "broken.ply"
    broken.write_bytes(b"ply\nformat binary_little_endian 1.0\nelement vertex 99\nend_header\n")
    for path in (broken, tmp_path / "none.ply", tmp_path / "none.obj"):
        with pytest.raises(SceneError, match=path.name):
            read_mesh(path)


@pytest.mark.parametrize("suffix", ["ply", "obj"])
def test_a_mesh_of_a_far_scene_is_written_where_the_scene_was(tmp_path, mesh, suffix):
    import trimesh

    origin = (555813.15, 5385888.54, 185.86)
    path = tmp_path / f"far.{suffix}"
    write_mesh(path, mesh, origin)
    if suffix == "obj":
        vertices = np.asarray(trimesh.load_mesh(path, process=False).vertices)
    else:
        columns = read_ply(path).columns("x", "y", "z")
        assert columns is not None and columns.dtype == np.float64
        vertices = columns
    assert np.abs(vertices - origin - mesh.vertices.numpy()).max() < 1e-6
    assert np.abs(read_mesh(path, origin).vertices.numpy() - mesh.vertices.numpy()).max() < 1e-6
    write_mesh(tmp_path / "near.glb", mesh, origin)
    assert (
        np.abs(read_mesh(tmp_path / "near.glb", origin).vertices.numpy() - mesh.vertices.numpy()).max() < 1e-6
    )


def test_a_mesh_larger_than_what_counts_as_near_stays_where_it_is(tmp_path, mesh):
    origin = (555813.15, 5385888.54, 185.86)
    large = Mesh(mesh.vertices * 300, mesh.faces, mesh.colors)
    write_mesh(tmp_path / "near.ply", large)
    assert np.abs(read_mesh(tmp_path / "near.ply", origin).vertices - large.vertices).max() < 1e-3
    write_mesh(tmp_path / "far.ply", large, origin)
    assert np.abs(read_mesh(tmp_path / "far.ply", origin).vertices - large.vertices).max() < 1e-3
