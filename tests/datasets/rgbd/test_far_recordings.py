"""Recordings whose poses or points are far from zero, and their own meshes: against the room they show."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ponderv2.datasets.rgbd.config import RgbdConfig
from ponderv2.datasets.rgbd.layouts import LAYOUTS
from ponderv2.datasets.rgbd.scene import read_recording
from ponderv2.datasets.rgbd.surface import own_surface
from ponderv2.datasets.scannet.scene import read_surface
from ponderv2.geometry.meshes import Mesh
from ponderv2.io.ply import encode_ply, read_ply
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.scenes.scene import Scene
from ponderv2.store.store import SceneStore
from ponderv2.workflows.prepare_surface import with_surface
from tests.scenes import box_room

UTM = np.array([555813.15, 5385888.54, 185.86])
LITTLE = "ply\nformat binary_little_endian 1.0\n"


def moved(shift: np.ndarray, count: int = 8) -> list[box_room.Shot]:
    """The images of the room somewhere else."""
    matrix = np.eye(4)
    matrix[:3, 3] = shift
    return [replace(shot, pose=matrix @ shot.pose) for shot in box_room.shots(count)]


def prepared(root: Path, layout: str, out: Path) -> tuple[Scene, dict]:
    config = RgbdConfig(path=root, up_axis="z", holdout=0, depth_scale=None)
    if layout == "tum":
        camera = root / "camera.txt"
        camera.write_text(" ".join(map(str, (box_room.K[0, 0], box_room.K[1, 1], *box_room.K[:2, 2]))))
        config = config.model_copy(update={"intrinsics": camera})
    store = SceneStore.create(out, DatasetInfo("rooms", splits=("train",)))
    store.write("train", "room", with_surface(read_recording(LAYOUTS[layout].read(root), root, config)))
    return store.read("room", "train"), store.record("room", "train")


def poses(scene: Scene) -> np.ndarray:
    return np.stack([np.linalg.inv(one.camera.world_to_camera.double().numpy()) for one in scene.frames])


@pytest.mark.parametrize("layout", ["7scenes", "redwood", "replica", "nerfstudio", "tum"])
def test_a_far_recording_is_prepared_as_the_near_one(tmp_path: Path, layout: str):
    scenes = {}
    for name, shift in (("near", np.zeros(3)), ("far", UTM)):
        box_room.WRITERS[layout](tmp_path / name, moved(shift))
        scenes[name], record = prepared(tmp_path / name, layout, tmp_path / f"out_{name}")
        origin = np.array(scenes[name].cloud.origin)
        assert origin.any() == shift.any() and ("origin" in record) == shift.any()
        truth = np.stack([shot.pose for shot in box_room.shots()])
        truth[:, :3, 3] += shift - origin
        assert np.abs(poses(scenes[name]) - truth).max() < 1e-5
        points = scenes[name].cloud.coord.double().numpy() + origin - shift
        distance = box_room.distance_to_room(points)
        assert np.median(distance) < 0.01 and np.quantile(distance, 0.95) < 0.05
    assert any("(555" in note and "is subtracted" in note for note in record["notes"])
    counts = [len(scene.cloud) for scene in scenes.values()]
    assert abs(counts[0] - counts[1]) < 0.15 * counts[0]  # the fused grid meets the walls otherwise


def test_the_turn_of_the_axes_and_the_origin_lead_back_together(tmp_path: Path):
    box_room.write_redwood(tmp_path / "in", moved(UTM))
    config = RgbdConfig(path=tmp_path / "in", up_axis="y", holdout=0)
    store = SceneStore.create(tmp_path / "out", DatasetInfo("rooms", splits=("train",)))
    store.write(
        "train",
        "room",
        with_surface(read_recording(LAYOUTS["redwood"].read(tmp_path / "in"), tmp_path, config)),
    )
    scene = store.read("room", "train")
    turned = scene.cloud.coord.double().numpy() + scene.cloud.origin
    back = np.stack([turned[:, 0], turned[:, 2], -turned[:, 1]], axis=1)  # z was y of the recording
    candidates = [back, np.stack([turned[:, 1], turned[:, 2], turned[:, 0]], axis=1)]
    assert min(np.median(box_room.distance_to_room(one - UTM)) for one in candidates) < 0.02


def test_a_pose_far_from_all_others_is_dropped_and_named(tmp_path: Path):
    taken = box_room.shots(12)
    lost = taken[5].pose.copy()
    lost[:3, 3] = (1e6, 0, 0)
    box_room.write_redwood(tmp_path / "in", [*taken[:5], replace(taken[5], pose=lost), *taken[6:]])
    scene, record = prepared(tmp_path / "in", "redwood", tmp_path / "out")
    assert [one.id for one in scene.frames] == [f"{i:05d}" for i in range(12) if i != 5]
    assert any(
        "1 frames far from all others were dropped, the first is 00005" in one for one in record["repairs"]
    )
    assert scene.cloud.coord.abs().max() < 5


def own_ply(coord: np.ndarray, color: np.ndarray, kind: str, names: str, coord_kind: str = "double") -> bytes:
    """Points without normals and faces."""
    types = {"double": "<f8", "float": "<f4", "uchar": "u1", "ushort": "<u2"}
    table = np.zeros(len(coord), [("p", types[coord_kind], 3), ("c", types[kind], 3)])
    table["p"], table["c"] = coord, color
    head = [f"element vertex {len(coord)}", *(f"property {coord_kind} {axis}" for axis in "xyz")]
    head += [f"property {kind} {name}" for name in names.split()]
    return (LITTLE + "\n".join([*head, "end_header"]) + "\n").encode() + table.tobytes()


POINTS = np.random.default_rng(0).random((300, 3)) * [4.0, 3.0, 2.0]
COLORS = np.random.default_rng(1).integers(0, 256, (300, 3))
WRITTEN = {
    "float": ("float", "red green blue", 1 / 255),
    "double": ("double", "red green blue", 1 / 255),
    "float 0..255": ("float", "red green blue", 1),
    "diffuse": ("uchar", "diffuse_red diffuse_green diffuse_blue", 1),
    "16 bits": ("ushort", "red green blue", 257),
    "capitals": ("uchar", "R G B", 1),
    "splats": ("float", "f_dc_0 f_dc_1 f_dc_2", 0),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_colours_of_a_mesh_of_the_recording_are_those_that_were_written(tmp_path: Path, kind: str):
    form, names, factor = WRITTEN[kind]
    values = COLORS * factor if factor else (COLORS / 255 - 0.5) / 0.28209479177387814
    (tmp_path / "own.ply").write_bytes(own_ply(POINTS, values, form, names))
    cloud, _, notes = own_surface(tmp_path / "own.ply", np.eye(4))
    assert cloud.color is not None and np.array_equal(cloud.color, COLORS)
    assert any("colours" in note for note in notes) == (kind not in ("float 0..255", "diffuse", "capitals"))
    colors = read_surface(tmp_path / "own.ply", np.eye(4))[0].color
    assert colors is not None and np.array_equal(colors, COLORS)


def test_a_far_mesh_moves_with_the_cameras(tmp_path: Path):
    box_room.write_replica(tmp_path / "in" / "room0", moved(UTM))
    coord = box_room.LOWER + POINTS / [4.0, 3.0, 2.0] * (box_room.UPPER - box_room.LOWER)
    coord[:, 2] = 0.0
    mesh = own_ply(coord + UTM, COLORS, "uchar", "red green blue")
    (tmp_path / "in" / "room0_mesh.ply").write_bytes(mesh)
    recording = LAYOUTS["replica"].read(tmp_path / "in" / "room0")
    assert recording.cloud is not None
    store = SceneStore.create(tmp_path / "out", DatasetInfo("rooms", splits=("train",)))
    config = RgbdConfig(path=tmp_path / "in" / "room0", up_axis="z", holdout=0)
    store.write("train", "room", with_surface(read_recording(recording, tmp_path, config)))
    scene = store.read("room", "train")
    origin = np.array(scene.cloud.origin)
    assert np.abs(scene.cloud.coord.double().numpy() + origin - UTM - coord).max() < 1e-6
    assert (
        np.abs(poses(scene)[:, :3, 3] + origin - UTM - [one[:3, 3] for one in box_room.poses()]).max() < 1e-5
    )
    assert np.array_equal(scene.cloud.color.numpy(), COLORS)


def test_points_of_a_mesh_far_from_all_others_are_left_out(tmp_path: Path):
    coord = np.concatenate([POINTS, [[1e5, 0, 0], [np.nan, 0, 0]]]).astype(np.float32)
    faces = np.stack([np.arange(0, 299), np.arange(1, 300), np.arange(2, 301)], axis=1)
    (tmp_path / "own.ply").write_bytes(encode_ply(coord, faces=faces))
    cloud, mesh, notes = own_surface(tmp_path / "own.ply", np.eye(4))
    assert len(cloud.coord) == 300 and np.abs(cloud.coord).max() < 5
    assert mesh is not None and len(mesh.faces) == 298 and np.isfinite(mesh.vertices.numpy()).all()
    assert any("2 points" in note for note in notes)


def test_points_of_every_reader_lose_an_origin_when_they_are_written(tmp_path: Path):
    from ponderv2.scenes.prepared import PreparedCloud, SceneStream
    from tests.scenes.closed_form_room import room_cloud, room_frames

    near, frames = room_cloud(500), room_frames(4, 0)
    shifted = []
    for frame in frames:
        pose = frame.camera_to_world.copy()
        pose[:3, 3] += UTM
        shifted.append(replace(frame, camera_to_world=pose))
    coord = near.coord.astype(np.float64) + UTM
    mesh = Mesh.of_arrays(coord, np.array([[0, 1, 2]]))
    cloud = PreparedCloud(coord, near.color, near.normal)
    store = SceneStore.create(tmp_path, DatasetInfo("rooms", splits=("train",)))
    store.write("train", "room", SceneStream.of(cloud, shifted, mesh))
    scene = store.read("room", "train")
    origin = np.array(scene.cloud.origin)
    assert np.abs(scene.cloud.coord.double().numpy() + origin - coord).max() < 1e-6
    assert (
        np.abs(poses(scene)[:, :3, 3] + origin - [one.camera_to_world[:3, 3] for one in shifted]).max() < 1e-5
    )
    vertices = read_ply(tmp_path / "train/room/mesh.ply").columns("x", "y", "z")
    assert vertices is not None and np.abs(vertices.astype(float) + origin - coord).max() < 1e-6
    record = json.loads((tmp_path / "train/room/prepared.json").read_text())
    assert np.allclose(record["origin"], origin, rtol=0, atol=1e-9)
