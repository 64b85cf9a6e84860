"""Readers of recordings and raw datasets, each reading as deeply as `ponder prepare` does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.campaigns.fuzz.target import Read


def sens(path: Path) -> None:
    from ponderv2.datasets.rgbd.layouts import sens as sens_file
    from ponderv2.errors import SceneError

    capture = sens_file.read(path)
    _frames(capture)
    for frame in capture.frames[:2]:
        try:
            frame.color.color()
        except SceneError:
            continue


def _frames(capture: Any) -> None:
    """Poses and the first frames, as `ponder prepare` reads them."""
    from ponderv2.datasets.recordings import Limits, register
    from ponderv2.errors import SceneError
    from ponderv2.geometry.poses import clean_poses

    clean_poses(np.stack([frame.camera_to_world for frame in capture.frames]))
    for frame in capture.frames[:2]:
        try:
            register(frame, capture, Limits(0.1, 10.0, 640))
        except SceneError:
            continue


def cloud(path: Path) -> None:
    from ponderv2.scenes.point_cloud_files import read_cloud_with_notes

    read_cloud_with_notes(path)


def mesh(path: Path) -> None:
    from ponderv2.datasets.scannet.scene import read_surface

    read_surface(path, np.eye(4))


def depth_picture(folder: Path) -> Read:
    from ponderv2.errors import SceneError
    from ponderv2.io.images import decode_integers, encoded_image_size

    def run(data: bytes) -> None:
        encoded_image_size(data, "depth.png")
        for indexed in (False, True):
            try:
                decode_integers(data, "depth.png", indexed)
            except SceneError:
                continue

    return run


def color_picture(folder: Path) -> Read:
    from ponderv2.io.images import decode_color

    def run(data: bytes) -> None:
        decode_color(data, "color.jpg", at_least=(4, 4))
        decode_color(data, "color.jpg")

    return run


def layout(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> None:
        from ponderv2.datasets.rgbd.layouts import LAYOUTS

        _frames(LAYOUTS[name].read(folder))

    return read


def seven_scenes(folder: Path) -> None:
    from ponderv2.errors import SceneError

    with contextlib.suppress(SceneError):
        layout("bundlefusion")(folder)
    layout("7scenes")(folder)


def intrinsics(folder: Path) -> Read:
    from ponderv2.datasets.camera_text import read_intrinsics, read_matrix

    def run(data: bytes) -> None:
        path = folder / ("camera.json" if data[:1] == b"{" else "camera.txt")
        path.write_bytes(data)
        read_intrinsics(path).at_size(640, 480)
        read_matrix(path, (4, 4))

    return run


def s3dis(folder: Path) -> Read:
    from ponderv2.datasets.s3dis.room import parse_points

    return lambda data: parse_points(data, folder / "table_1.txt")


def obj(path: Path) -> None:
    from ponderv2.geometry.nearest_faces import near_box, nearest_normals
    from ponderv2.io.obj import read_obj

    read_obj.cache_clear()
    triangles = near_box(read_obj(path).astype(np.float64), np.zeros(3) - 9, np.zeros(3) + 9)
    if len(triangles):
        nearest_normals(np.zeros((2, 3)), triangles)


def view(folder: Path) -> None:
    from ponderv2.datasets.s3dis.stanford2d3d import RawView, read_view_intrinsics, view_pose

    view = RawView(folder, "camera", "1", "2")
    read_view_intrinsics(view.intrinsics)
    view_pose(view)


def scannet_labels(folder: Path) -> None:
    from ponderv2.datasets.scannet import labels as scannet_labels
    from ponderv2.datasets.scannet.scene import SceneFiles, _alignment
    from ponderv2.errors import SceneError

    files = SceneFiles(folder, "scene")
    with contextlib.suppress(SceneError):
        _alignment(files)
    table = scannet_labels.read_label_table(folder / "labels.tsv")
    segments = scannet_labels.read_segments(files.segments, 6)
    scannet_labels.label_vertices(segments, scannet_labels.read_groups(files.aggregation), table)


def scannetpp(folder: Path) -> None:
    from ponderv2.datasets.scannet.labels import read_groups
    from ponderv2.datasets.scannetpp.config import ScannetppConfig
    from ponderv2.datasets.scannetpp.reader import find, read_classes, smallest_objects

    benchmark = folder / "metadata/semantic_benchmark"
    _, classes = read_classes(benchmark)
    find(ScannetppConfig(path=folder))
    smallest_objects(
        np.arange(6), read_groups(folder / "data/aa00/scans/segments_anno.json", "objectId"), classes
    )


def label_zip(path: Path) -> None:
    from ponderv2.datasets.scannet.frames import LabelZip
    from ponderv2.errors import SceneError

    archive = LabelZip.open(path)
    try:
        for number in list(archive.members)[:3]:
            try:
                archive.read(number)
            except SceneError:
                continue
    finally:
        archive.close()


def structured3d(path: Path) -> None:
    from ponderv2.datasets.structured3d.config import Structured3dConfig
    from ponderv2.datasets.structured3d.reader import find

    for job in find(Structured3dConfig(path=path, min_coverage=0.0)).scenes[:2]:
        job.fingerprint()
        prepared = job.read()
        for _ in prepared.frames:
            pass
        prepared.finish()


def nuscenes(folder: Path) -> None:
    from ponderv2.datasets.nuscenes import index as nuscenes_index
    from ponderv2.datasets.nuscenes import infos
    from ponderv2.datasets.nuscenes.build import build, untracked
    from ponderv2.datasets.nuscenes.config import NuscenesConfig
    from ponderv2.datasets.nuscenes.scenes import read_key_frame
    from ponderv2.errors import SceneError

    target = folder / "index.sqlite"
    target.unlink(missing_ok=True)
    pickled = folder / "nuscenes_infos_train.pkl"
    if pickled.is_file():
        build(pickled, target, untracked, infos.fill)
    else:
        build(folder / "v1.0-mini", target)
    nuscenes_index._connection.cache_clear()
    index = nuscenes_index.NuscenesIndex(target, "v1.0-mini")
    for sample in index.samples()[:2]:
        with contextlib.suppress(SceneError):
            read_key_frame(folder, index, sample, NuscenesConfig(path=folder))


def vehicle(folder: Path) -> None:
    from ponderv2.datasets.vehicle.config import VehicleConfig
    from ponderv2.datasets.vehicle.reader import source
    from ponderv2.errors import SceneError

    drives = source(VehicleConfig(path=folder)).drives
    for name in drives.names("train")[:2]:
        with contextlib.suppress(SceneError):
            drives.read("train", name, True)


def kitti(folder: Path) -> None:
    from ponderv2.datasets.kitti.config import KittiConfig
    from ponderv2.datasets.kitti.reader import source
    from ponderv2.errors import SceneError

    drives = source(KittiConfig(path=folder)).drives
    for name in drives.names("train")[:2]:
        with contextlib.suppress(SceneError):
            drives.read("train", name, True)


def detection_arrays(folder: Path) -> None:
    from ponderv2.datasets.scannet.detection_arrays import find_arrays

    found = find_arrays(folder)
    if found is not None:
        found[1].read(folder / "train" / "scene0001_00", "scene0001_00", True, "none")


def mat(path: Path) -> None:
    from ponderv2.datasets.sunrgbd.config import SunRgbdConfig
    from ponderv2.datasets.sunrgbd.reader import source
    from tests.datasets.sunrgbd.files import images, official

    lists = path.with_name("allsplit.mat")
    if not lists.exists():
        lists.write_bytes(official(images())["SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"])
    source(SunRgbdConfig(path=path.parent))


def sunrgbd_text(folder: Path) -> None:
    from ponderv2.datasets.sunrgbd.image import camera_of
    from ponderv2.datasets.sunrgbd.votenet import read_calibration, read_labels

    read_labels(folder / "label" / "000001.txt").boxes([])
    camera_of(*read_calibration(folder / "calib" / "000001.txt"), 40, 30, "calib")


def semantickitti(folder: Path) -> None:
    from ponderv2.datasets.semantickitti.config import SemanticKittiConfig
    from ponderv2.datasets.semantickitti.reader import source
    from ponderv2.errors import SceneError

    drives = source(SemanticKittiConfig(path=folder, sweeps=2)).drives
    for name in drives.names("train")[:2]:
        with contextlib.suppress(SceneError):
            drives.read("train", name, True)


def scan(path: Path) -> None:
    from ponderv2.datasets.lidar_files import FloatRows

    FloatRows(("intensity", "ring"), 1.0 / 255.0).points(path)
