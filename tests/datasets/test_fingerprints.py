"""What decides that a scene is unchanged: every byte of the files it is made from, and no time of a file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ponderv2.checks.config import CheckConfig
from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.reader import RawScene
from ponderv2.datasets.rgbd import reader as rgbd_reader
from ponderv2.datasets.rgbd.config import FusionConfig, RgbdConfig
from ponderv2.datasets.s3dis import reader as s3dis
from ponderv2.datasets.s3dis.config import S3disConfig
from ponderv2.datasets.scannet import reader as scannet
from ponderv2.datasets.scannet.config import ScannetConfig
from ponderv2.datasets.scannetpp import reader as scannetpp
from ponderv2.datasets.scannetpp.config import ScannetppConfig
from ponderv2.datasets.structured3d import reader as structured3d
from ponderv2.datasets.structured3d.config import Structured3dConfig
from ponderv2.scenes.prepared import PreparedCloud, SceneStream
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.store.store import SceneStore
from ponderv2.workflows import prepare
from ponderv2.workflows.config import PrepareConfig
from tests.datasets import scannet_files, stanford_room, structured3d_room
from tests.scenes import box_room


def recording(layout: str) -> Callable[[Path], RawScene]:
    """A recording of three frames; its job."""

    def write(root: Path) -> RawScene:
        box_room.WRITERS[layout](root, box_room.shots(3))
        return rgbd_reader.find(RgbdConfig(path=root)).scenes[0]

    return write


def scannet_scene(root: Path) -> RawScene:
    """A scene with a .sens file and 2D labels."""
    folder = scannet_files.write_scene(root / "scans/scene0000_00")
    (folder / "scene0000_00.sens").write_bytes(scannet_files.sens_bytes(box_room.shots(2)))
    scannet_files.write_labels(
        folder, {"label-filt/0.png": scannet_files.png_bytes(scannet_files.label_ids())}
    )
    scannet_files.write_table(root / "scannetv2-labels.combined.tsv")
    return scannet.find(ScannetConfig(path=root)).scenes[0]


def scannet_export(root: Path) -> RawScene:
    """A scene whose frames were exported beside its mesh."""
    folder = scannet_files.write_scene(root / "scans/scene0000_00")
    box_room.write_scannet(folder, box_room.shots(2))
    scannet_files.write_table(root / "scannetv2-labels.combined.tsv")
    return scannet.find(ScannetConfig(path=root)).scenes[0]


def scannetpp_scene(root: Path) -> RawScene:
    """Mesh, segments and groups."""
    scans = root / "data/aa00/scans"
    scans.mkdir(parents=True)
    (scans / "mesh_aligned_0.05.ply").write_bytes(scannet_files.ply_bytes())
    for name in ("segments.json", "segments_anno.json"):
        (scans / name).write_text("{}")
    metadata = root / "metadata/semantic_benchmark"
    metadata.mkdir(parents=True)
    (metadata / "top100.txt").write_text("wall\n")
    (metadata / "map_benchmark.csv").write_text("class,count,semantic_map_to,instance_map_to\nwall,1,,\n")
    (root / "splits").mkdir()
    (root / "splits/nvs_sem_train.txt").write_text("aa00\n")
    return scannetpp.find(ScannetppConfig(path=root)).scenes[0]


def s3dis_room(root: Path) -> RawScene:
    """A room with annotated points, two images and the mesh of its area."""
    archive, noxyz = root / "Stanford3dDataset_v1.2", root / "noXYZ"
    stanford_room.write_room(archive / "Area_1", "office_1", stanford_room.room_things(0.4))
    stanford_room.write_angles(archive / "Area_1", {"office_1": 90})
    stanford_room.write_views(noxyz / "area_1", "office_1", stanford_room.poses()[:2])
    stanford_room.write_mesh(noxyz / "area_1")
    return s3dis.find(S3disConfig(path=archive, noxyz=noxyz)).scenes[0]


def structured3d_folder(root: Path) -> RawScene:
    """A room out of its archives."""
    for name, data in structured3d_room.room_files().items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return structured3d.find(Structured3dConfig(path=root)).scenes[0]


def structured3d_archives(root: Path) -> RawScene:
    """A room in its archives."""
    structured3d_room.write_zips(root, structured3d_room.room_files())
    return structured3d.find(Structured3dConfig(path=root)).scenes[0]


INPUTS: dict[str, Callable[[Path], RawScene]] = {
    **{layout: recording(layout) for layout in box_room.WRITERS},
    "ScanNet with .sens": scannet_scene,
    "ScanNet exported": scannet_export,
    "ScanNet++": scannetpp_scene,
    "S3DIS": s3dis_room,
    "Structured3D folder": structured3d_folder,
    "Structured3D archives": structured3d_archives,
}
PLANNED = ("alignmentAngle", ".tsv", "metadata", "splits", ".zip", "rgb.obj", "camera_to_room")
"""Files that are read when the jobs are planned: angles, classes, splits, directories of archives, meshes."""
UNUSED = (
    "layout.json",
    "rgb_coldlight",
    "rgb_warmlight",
    "albedo",
    "normal",
    "instance",
    "office_1/office_1.txt",
)


def change_in_place(path: Path) -> None:
    """Another last byte; size and times of file and folder stay."""
    state, folder = path.stat(), path.parent.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    with path.open("r+b") as stream:
        stream.write(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    os.utime(path.parent, ns=(folder.st_atime_ns, folder.st_mtime_ns))


@pytest.mark.parametrize("kind", INPUTS)
def test_a_changed_byte_of_any_file_is_noticed_at_equal_size_and_time(tmp_path: Path, kind: str):
    job = INPUTS[kind](tmp_path / "in")
    files = [path for path in sorted((tmp_path / "in").rglob("*")) if path.is_file()]
    files = [path for path in files if not any(word in str(path) for word in (*PLANNED, *UNUSED))]
    seen = {job.fingerprint()}
    for path in files:
        change_in_place(path)
        assert job.fingerprint() not in seen, path
        seen.add(job.fingerprint())
    assert len(files) >= 3 or kind in ("sens", "Structured3D archives")


@pytest.mark.parametrize("kind", INPUTS)
def test_a_copy_with_other_times_is_the_same(tmp_path: Path, kind: str):
    before = INPUTS[kind](tmp_path / "in").fingerprint()
    shutil.copytree(tmp_path / "in", tmp_path / "kept")
    shutil.rmtree(tmp_path / "in")
    shutil.copytree(tmp_path / "kept", tmp_path / "in", copy_function=shutil.copyfile)
    for path in (tmp_path / "in").rglob("*"):
        os.utime(path, (1, 1))
    again = FINDERS[kind](tmp_path / "in") if kind in FINDERS else recorded(tmp_path / "in")
    assert again.fingerprint() == before


def recorded(root: Path) -> RawScene:
    """The job of a recording that is there."""
    return rgbd_reader.find(RgbdConfig(path=root)).scenes[0]


FINDERS: dict[str, Callable[[Path], RawScene]] = {
    "ScanNet with .sens": lambda root: scannet.find(ScannetConfig(path=root)).scenes[0],
    "ScanNet exported": lambda root: scannet.find(ScannetConfig(path=root)).scenes[0],
    "ScanNet++": lambda root: scannetpp.find(ScannetppConfig(path=root)).scenes[0],
    "S3DIS": lambda root: s3dis.find(
        S3disConfig(path=root / "Stanford3dDataset_v1.2", noxyz=root / "noXYZ")
    ).scenes[0],
    "Structured3D folder": lambda root: structured3d.find(Structured3dConfig(path=root)).scenes[0],
    "Structured3D archives": lambda root: structured3d.find(Structured3dConfig(path=root)).scenes[0],
}


def test_files_that_are_read_for_the_plan_count_too(tmp_path: Path):
    s3dis_room(tmp_path / "a")
    before = FINDERS["S3DIS"](tmp_path / "a").fingerprint()
    mesh = tmp_path / "a/noXYZ/area_1/3d/rgb.obj"
    change_in_place(mesh)
    second = FINDERS["S3DIS"](tmp_path / "a").fingerprint()
    angles = tmp_path / "a/Stanford3dDataset_v1.2/Area_1/Area_1_alignmentAngle.txt"
    angles.write_text(angles.read_text().replace("90", "80"))
    assert len({before, second, FINDERS["S3DIS"](tmp_path / "a").fingerprint()}) == 3

    files = structured3d_room.room_files()
    structured3d_room.write_zips(tmp_path / "b", files)
    before = FINDERS["Structured3D archives"](tmp_path / "b").fingerprint()
    name = next(one for one in files if one.endswith("camera_xyz.txt"))
    structured3d_room.write_zips(tmp_path / "b", {**files, name: files[name].replace(b"1", b"2")})
    assert FINDERS["Structured3D archives"](tmp_path / "b").fingerprint() != before


def test_views_that_change_places_are_noticed(tmp_path: Path):
    job = structured3d_folder(tmp_path)
    before = job.fingerprint()
    one, two = (next(tmp_path.rglob(f"{view}/depth.png")) for view in (0, 1))
    first, second = one.read_bytes(), two.read_bytes()
    assert first != second
    one.write_bytes(second)
    two.write_bytes(first)
    assert job.fingerprint() != before


def test_files_outside_of_the_folder_that_a_recording_names_count(tmp_path: Path):
    root = tmp_path / "room"
    box_room.write_nerfstudio(root, box_room.shots(2))
    shutil.move(root / "images", tmp_path / "elsewhere")
    values = json.loads((root / "transforms.json").read_text())
    for frame in values["frames"]:
        frame["file_path"] = frame["file_path"].replace("images", "../elsewhere")
    (root / "transforms.json").write_text(json.dumps(values))
    seen = {recorded(root).fingerprint()}
    change_in_place(tmp_path / "elsewhere/001.png")
    seen.add(recorded(root).fingerprint())
    assert len(seen) == 2

    box_room.write_replica(tmp_path / "office", box_room.shots(2))
    shutil.move(tmp_path / "office/cam_params.json", tmp_path / "cam_params.json")
    before = recorded(tmp_path / "office").fingerprint()
    change_in_place(tmp_path / "cam_params.json")
    assert recorded(tmp_path / "office").fingerprint() != before


def test_images_of_a_recording_that_is_given_by_its_file_count(tmp_path: Path):
    box_room.write_nerfstudio(tmp_path, box_room.shots(2))
    job = recorded(tmp_path / "transforms.json")
    before = job.fingerprint()
    change_in_place(tmp_path / "depths/001.png")
    assert job.fingerprint() != before


def test_linked_folders_count_and_files_of_settings_and_no_hidden_ones(tmp_path: Path):
    box_room.write_scannet(tmp_path / "room", box_room.shots(2))
    shutil.move(tmp_path / "room/pose", tmp_path / "poses")
    (tmp_path / "room/pose").symlink_to(tmp_path / "poses")
    camera = tmp_path / "camera.txt"
    np.savetxt(camera, box_room.K)
    job = rgbd_reader.find(RgbdConfig(path=tmp_path / "room", intrinsics=camera)).scenes[0]
    before = job.fingerprint()
    (tmp_path / "room/.DS_Store").write_bytes(b"\0")
    assert job.fingerprint() == before
    seen = {before}
    for path in (tmp_path / "poses/1.txt", camera):
        change_in_place(path)
        seen.add(job.fingerprint())
    assert len(seen) == 3


def test_scenes_prepared_into_the_recording_itself_are_no_part_of_it(tmp_path: Path):
    box_room.write_7scenes(tmp_path / "room", box_room.shots(2))
    before = recorded(tmp_path / "room").fingerprint()
    store = SceneStore.create(tmp_path / "room/prepared", DatasetInfo("rgbd"))
    points = np.eye(3, dtype=np.float32)
    store.write("train", "room", SceneStream.of(PreparedCloud(points, points.astype(np.uint8), points)))
    assert recorded(tmp_path / "room").fingerprint() == before


def config(path: Path, out: Path) -> PrepareConfig:
    source = RgbdConfig(path=path, up_axis="z", fusion=FusionConfig(voxel_size=0.08, truncation=0.3))
    return PrepareConfig(source=source, out=out, workers=1, check=CheckConfig(n_pixels=200))


def pose_in_store(out: Path, room: str) -> np.ndarray:
    return np.linalg.inv(open_folder(out).read(room).frames[1].camera.world_to_camera.numpy())


def test_a_corrected_pose_is_prepared_anew_and_touched_files_are_not(tmp_path: Path):
    taken = box_room.shots(4)
    for room in ("a", "b"):
        box_room.write_7scenes(tmp_path / "in" / room, taken)
    run = config(tmp_path / "in", tmp_path / "out")
    assert prepare.run(run).n_prepared == 2
    for path in (tmp_path / "in").rglob("*"):
        os.utime(path, (4e9, 4e9))
    assert prepare.run(run).n_skipped == 2
    assert np.allclose(pose_in_store(tmp_path / "out", "a"), taken[1].pose, atol=1e-5)
    corrected = taken[1].pose.copy()
    corrected[0, 3] += 0.125
    path = tmp_path / "in/a/frame-000001.pose.txt"
    state, folder = path.stat(), path.parent.stat()
    np.savetxt(path, corrected)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    os.utime(path.parent, ns=(folder.st_atime_ns, folder.st_mtime_ns))
    again = prepare.run(run)
    assert (again.n_prepared, again.n_skipped) == (1, 1)
    assert np.allclose(pose_in_store(tmp_path / "out", "a"), corrected, atol=1e-5)
    assert np.allclose(pose_in_store(tmp_path / "out", "b"), taken[1].pose, atol=1e-5)
