"""Fusion of exact depth images gives back the room that they were taken of."""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from ponderv2.errors import ResourceError
from ponderv2.reconstruction.fusion import TsdfFusion, load_open3d
from ponderv2.scenes.prepared import FusionSettings
from tests.scenes import box_room


@pytest.fixture(scope="module")
def fusion() -> TsdfFusion:
    fused = TsdfFusion(FusionSettings(voxel_size=0.05, truncation=0.2))
    for shot in box_room.shots():
        fused.add(shot.depth.astype(np.float32), shot.color, box_room.K, np.linalg.inv(shot.pose))
    return fused


def test_points_lie_on_the_walls_without_bias(fusion: TsdfFusion):
    coord = fusion.cloud().coord.astype(float)
    assert np.median(box_room.distance_to_room(coord)) < 0.003
    floor = coord[np.abs(coord[:, 2]) < 0.05]
    assert len(floor) > 100 and abs(np.median(floor[:, 2])) < 0.002


def test_normals_are_unit_and_point_into_the_room(fusion: TsdfFusion):
    cloud = fusion.cloud()
    assert np.allclose(np.linalg.norm(cloud.normal, axis=1), 1.0, atol=1e-5)
    floor = np.abs(cloud.coord[:, 2]) < 0.02
    assert np.median(cloud.normal[floor, 2]) > 0.99


def test_colours_are_those_of_the_surface(fusion: TsdfFusion):
    cloud = fusion.cloud()
    true = 128 + 90 * np.sin(cloud.coord @ np.array([[3.0, 1, 2], [1, 4, 1], [2, 1, 3.5]]))
    assert np.median(np.abs(true - cloud.color)) < 6


def test_the_mesh_has_the_vertices_of_the_cloud_and_faces_that_agree_with_its_normals(fusion: TsdfFusion):
    cloud, mesh = fusion.cloud(), fusion.mesh()
    assert np.array_equal(cloud.coord, mesh.vertices)
    faces = mesh.faces.numpy()
    corner = mesh.vertices.numpy()[faces]
    face = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    assert ((face * cloud.normal[faces[:, 0]]).sum(axis=1) > 0).mean() > 0.97


def test_frames_without_depth_give_an_empty_cloud():
    fused = TsdfFusion(FusionSettings())
    shot = box_room.shots(2)[0]
    fused.add(np.zeros_like(shot.depth, np.float32), shot.color, box_room.K, np.eye(4))
    assert len(fused.cloud().coord) == 0 and len(fused.mesh().faces) == 0


def test_without_open3d_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    """None in sys.modules is how Python marks a module that cannot be found."""
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(ResourceError, match="needs Open3D") as found:
        TsdfFusion(FusionSettings())
    assert found.value.fix == 'pip install "ponder[open3d]"'


def test_libusb_is_loaded_globally_before_open3d(monkeypatch: pytest.MonkeyPatch):
    """Open3D 0.20 finds its symbols only that way."""
    order = []
    package = SimpleNamespace(get_library_path=lambda: "/somewhere/libusb-1.0.so")
    monkeypatch.setitem(sys.modules, "libusb_package", package)
    monkeypatch.setattr("ctypes.CDLL", lambda path, mode: order.append((path, mode)))
    monkeypatch.setattr("importlib.import_module", lambda name: order.append((name, None)))
    load_open3d()
    assert order == [("/somewhere/libusb-1.0.so", ctypes.RTLD_GLOBAL), ("open3d", None)]
