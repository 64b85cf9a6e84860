"""What is fed with damaged input: one entry per reader, each reading as deeply as `ponder` does."""

from __future__ import annotations

import contextlib
import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzz import seeds

Read = Callable[[bytes], Any]


@dataclass(frozen=True)
class Target:
    """A reader, the files it starts from and how they are damaged."""

    seeds: Callable[[], list[bytes]]
    prepare: Callable[[Path], Read]
    """Gives the function that reads one input, with a folder of its own."""
    kind: str = "bytes"
    """bytes, text, zip or png: see mutation.py."""


def _file(name: str, read: Callable[[Path], Any]) -> Callable[[Path], Read]:
    """The input as one file."""

    def prepare(folder: Path) -> Read:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)

        def run(data: bytes) -> None:
            path.write_bytes(data)
            read(path)

        return run

    return prepare


def _files(names: tuple[str, ...], read: Callable[[Path], Any], pictures: tuple[str, ...] = ()) -> Any:
    """The input as several files of a folder; `pictures` are there too and sound."""

    def prepare(folder: Path) -> Read:
        for name in (*names, *pictures):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        for name in pictures:
            values = seeds.depth() if "depth" in name else seeds.color()
            (folder / name).write_bytes(seeds.picture(values, "JPEG" if name.endswith("jpg") else "PNG"))

        def run(data: bytes) -> None:
            parts = data.split(seeds.SEPARATOR)
            for index, name in enumerate(names):
                (folder / name).write_bytes(parts[index] if index < len(parts) else b"")
            read(folder)

        return run

    return prepare


def _sens(path: Path) -> None:
    from ponderv2.errors import SceneError
    from ponderv2.scenes.sources.layouts import sens_file

    capture = sens_file.read(path)
    _frames(capture)
    for frame in capture.frames[:2]:
        try:
            frame.color.color()
        except SceneError:
            continue


def _frames(capture: Any) -> None:
    """Poses and the first frames, as `ponder prepare` reads them."""
    from ponderv2.errors import SceneError
    from ponderv2.scenes.sources.frame_loading import Limits, load_frame
    from ponderv2.scenes.sources.poses import clean_poses

    clean_poses(np.stack([frame.camera_to_world for frame in capture.frames]))
    for frame in capture.frames[:2]:
        try:
            load_frame(frame, capture, Limits(0.1, 10.0, 640))
        except SceneError:
            continue


def _cloud(path: Path) -> None:
    from ponderv2.scenes.point_files import read_cloud_with_notes

    read_cloud_with_notes(path)


def _mesh(path: Path) -> None:
    from ponderv2.scenes.sources.scannet_scene import read_surface

    read_surface(path, np.eye(4))


def _depth_picture(folder: Path) -> Read:
    from ponderv2.errors import SceneError
    from ponderv2.scenes.pictures import decode_integers, encoded_size

    def run(data: bytes) -> None:
        encoded_size(data, "depth.png")
        for indexed in (False, True):
            try:
                decode_integers(data, "depth.png", indexed)
            except SceneError:
                continue

    return run


def _color_picture(folder: Path) -> Read:
    from ponderv2.scenes.pictures import decode_color

    def run(data: bytes) -> None:
        decode_color(data, "color.jpg", at_least=(4, 4))
        decode_color(data, "color.jpg")

    return run


def _layout(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> None:
        from ponderv2.scenes.sources.layouts import LAYOUTS

        _frames(LAYOUTS[name].read(folder))

    return read


def _seven_scenes(folder: Path) -> None:
    from ponderv2.errors import SceneError

    with contextlib.suppress(SceneError):
        _layout("bundlefusion")(folder)
    _layout("7scenes")(folder)


def _intrinsics(folder: Path) -> Read:
    from ponderv2.scenes.sources.text_files import read_lens, read_matrix

    def run(data: bytes) -> None:
        path = folder / ("camera.json" if data[:1] == b"{" else "camera.txt")
        path.write_bytes(data)
        read_lens(path).at_size(640, 480)
        read_matrix(path, (4, 4))

    return run


def _s3dis(folder: Path) -> Read:
    from ponderv2.scenes.sources.s3dis_text import parse_points

    return lambda data: parse_points(data, folder / "table_1.txt")


def _obj(path: Path) -> None:
    from ponderv2.scenes.sources.surface_normals import near_box, nearest_normals, read_obj

    read_obj.cache_clear()
    triangles = near_box(read_obj(path).astype(np.float64), np.zeros(3) - 9, np.zeros(3) + 9)
    if len(triangles):
        nearest_normals(np.zeros((2, 3)), triangles)


def _view(folder: Path) -> None:
    from ponderv2.scenes.sources.stanford2d3d import RawView, read_view_lens, view_pose

    view = RawView(folder, "camera", "1", "2")
    read_view_lens(view.intrinsics)
    view_pose(view)


def _scannet_labels(folder: Path) -> None:
    from ponderv2.errors import SceneError
    from ponderv2.scenes.sources import scannet_labels
    from ponderv2.scenes.sources.scannet_scene import SceneFiles, _alignment

    files = SceneFiles(folder, "scene")
    with contextlib.suppress(SceneError):
        _alignment(files)
    table = scannet_labels.read_label_table(folder / "labels.tsv")
    segments = scannet_labels.read_segments(files.segments, 6)
    scannet_labels.label_vertices(segments, scannet_labels.read_groups(files.aggregation), table)


def _scannetpp(folder: Path) -> None:
    from ponderv2.scenes.sources.scannet_labels import read_groups
    from ponderv2.scenes.sources.scannetpp import find, read_classes, smallest_objects
    from ponderv2.scenes.sources.scannetpp_config import ScannetppConfig

    benchmark = folder / "metadata/semantic_benchmark"
    _, classes = read_classes(benchmark)
    find(ScannetppConfig(path=folder))
    smallest_objects(
        np.arange(6), read_groups(folder / "data/aa00/scans/segments_anno.json", "objectId"), classes
    )


def _label_zip(path: Path) -> None:
    from ponderv2.errors import SceneError
    from ponderv2.scenes.sources.scannet_pictures import LabelZip

    archive = LabelZip.open(path)
    try:
        for number in list(archive.members)[:3]:
            try:
                archive.read(number)
            except SceneError:
                continue
    finally:
        archive.close()


def _structured3d(path: Path) -> None:
    from ponderv2.scenes.sources.structured3d import find
    from ponderv2.scenes.sources.structured3d_config import Structured3dConfig

    for job in find(Structured3dConfig(path=path, min_coverage=0.0)).jobs[:2]:
        job.fingerprint()
        prepared = job.prepare()
        for _ in prepared.frames:
            pass
        prepared.surface()


def _pickled(path: Path) -> None:
    from ponderv2.scenes.safe_pickle import read_pickled

    read_pickled(path)


def _pickled_scene(folder: Path) -> Read:
    from ponderv2.errors import SceneError
    from ponderv2.scenes.processed import ponderv2_views
    from ponderv2.scenes.processed.photographs import Photographs
    from ponderv2.scenes.processed.ponderv2 import PickledScenes

    scene, view = folder / "train/scene0000_00.pth", folder / "train/room_rgbd/0.pth"
    for path in (scene, view):
        path.parent.mkdir(parents=True, exist_ok=True)
    layout = PickledScenes(Photographs(folder))

    def run(data: bytes) -> None:
        view.write_bytes(data)
        try:
            ponderv2_views._camera(view)
            ponderv2_views._pictures.cache_clear()
            ponderv2_views.PickledPictures(20).color(view, (8, 6))
            ponderv2_views.PickledPictures(20).depth(view, (8, 6))
            ponderv2_views.PickledPictures(20).semantic(view, (8, 6))
        except (SceneError, ponderv2_views._Unusable):
            pass
        scene.write_bytes(data)
        layout.read(folder / "train/scene0000_00", "scene0000_00", True, "all")

    return run


def _frame_lists(folder: Path) -> None:
    from ponderv2.errors import SceneError
    from ponderv2.scenes.processed import ponderv2_recordings as recordings

    recordings._parsed_skip_list.cache_clear()
    recordings._parsed_frame_list.cache_clear()
    with contextlib.suppress(SceneError):
        recordings._parsed_skip_list(folder / "skip.lst", 0)
    recordings._parsed_frame_list(folder / "train.json", 0)


def _store(folder: Path) -> Read:
    from ponderv2.scenes.storage import DatasetInfo, SceneStore
    from ponderv2.workflows.prepare import _read_report

    place = folder / "train/room"
    place.mkdir(parents=True)
    np.save(place / "coord.npy", np.zeros((3, 3), np.float32))

    def run(data: bytes) -> None:
        parts = [*data.split(seeds.SEPARATOR), b"", b""]
        (folder / "dataset.yaml").write_bytes(parts[0])
        (place / "prepared.json").write_bytes(parts[1])
        (folder / "prepare_report.json").write_bytes(parts[2])
        _read_report(folder)
        SceneStore(folder, DatasetInfo("rooms")).record("room", "train")
        store = SceneStore.open(folder)
        store.info.label_set("segment200")

    return run


def _scene_arrays(folder: Path) -> Read:
    from ponderv2.errors import SceneError
    from ponderv2.scenes.storage_reader import read_scene

    def run(data: bytes) -> None:
        for name in ("color", "normal", "segment", "coord"):
            (folder / f"{name}.npy").write_bytes(data)
            with contextlib.suppress(SceneError):
                read_scene(folder, "room")
            if name != "coord":
                (folder / f"{name}.npy").unlink()
            else:
                np.save(folder / "coord.npy", np.zeros((5, 3), np.float32))
                np.save(folder / "normal.npy", np.ones((5, 3), np.float32))

    np.save(folder / "coord.npy", np.zeros((5, 3), np.float32))
    return run


def _cameras(folder: Path) -> Read:
    from ponderv2.scenes.storage_reader import _read_frames

    def run(data: bytes) -> None:
        (folder / "cameras.npz").write_bytes(data)
        _read_frames(folder)

    return run


def _preset(path: Path) -> None:
    from ponder_cli.presets import checked, read_layer
    from ponderv2.workflows.configs import PretrainConfig

    checked(read_layer(path, "pretrain"), PretrainConfig)


def _override(folder: Path) -> Read:
    from ponder_cli.layers import Layer, parse_override, with_override
    from ponder_cli.presets import checked, find_preset, read_layer
    from ponderv2.workflows.configs import PretrainConfig

    preset = read_layer(find_preset("pretrain", "demo"), "pretrain")

    def written_out(layer: Layer) -> dict[str, Any]:
        return checked(layer, PretrainConfig).model_dump(mode="json")

    def run(data: bytes) -> None:
        layer = preset
        for text in data.decode("utf-8", "surrogateescape").split("\n")[:3]:
            layer = with_override(layer, parse_override(text), written_out)
        checked(layer, PretrainConfig)

    return run


def _checkpoint(path: Path) -> None:
    from ponderv2.errors import CheckpointError
    from ponderv2.training.stored_models import load_stored

    try:
        load_stored(path)
    except CheckpointError:
        if path.suffix != ".pth":
            raise
    path.write_bytes(_signed(path.read_bytes()))
    load_stored(path)


def _signed(data: bytes) -> bytes:
    """With a checksum as ours: whoever damages a file on purpose can write one."""
    from ponderv2.training import checkpoint

    signed = data[:-2] + struct.pack("<H", checkpoint._COMMENT_LENGTH)
    return signed + checkpoint._MARK + hashlib.sha256(signed).hexdigest().encode()


def _camera_path(path: Path) -> None:
    from ponderv2.reconstruction.paths import read_path

    read_path(path)


def _embeddings(folder: Path) -> Read:
    from ponderv2.errors import PonderError
    from ponderv2.heads.text_embeddings import _read

    def run(data: bytes) -> None:
        for name in ("rows.npy", "rows.safetensors"):
            (folder / name).write_bytes(data)
            try:
                _read(folder / name)
            except PonderError:
                continue

    return run


_TUM_PICTURES = tuple(f"{kind}/{index}.png" for kind in ("rgb", "depth") for index in range(2))
_SEVEN = ("frame-000000.pose.txt", "frame-000001.pose.txt", "camera-intrinsics.txt", "info.txt")
_SEVEN_PICTURES = tuple(f"frame-00000{index}.{kind}.png" for kind in ("color", "depth") for index in range(2))
_EXPORT = (
    "pose/0.txt",
    "intrinsic/intrinsic_depth.txt",
    "intrinsic/intrinsic_color.txt",
    *tuple(f"intrinsic/extrinsic_{kind}.txt" for kind in ("color", "depth")),
)
_LABELS = ("labels.tsv", "scene_vh_clean_2.0.010000.segs.json", "scene.aggregation.json", "scene.txt")
_PLUS = (
    "metadata/semantic_benchmark/top100.txt", "metadata/semantic_benchmark/map_benchmark.csv",
    "splits/nvs_sem_train.txt", "data/aa00/scans/segments_anno.json",
)  # fmt: skip

TARGETS: dict[str, Target] = {
    "sens": Target(seeds.sens, _file("room.sens", _sens)),
    "ply": Target(seeds.ply, _file("cloud.ply", _cloud), "text"),
    "ply mesh": Target(seeds.ply, _file("mesh.ply", _mesh)),
    "pcd": Target(seeds.pcd, _file("cloud.pcd", _cloud), "text"),
    "npy": Target(seeds.npys, _file("cloud.npy", _cloud), "text"),
    "points text": Target(seeds.s3dis, _file("cloud.txt", _cloud), "text"),
    "depth png": Target(seeds.depth_pngs, _depth_picture, "png"),
    "colour jpeg": Target(seeds.color_pictures, _color_picture, "png"),
    "tum": Target(
        seeds.tum, _files(("rgb.txt", "depth.txt", "groundtruth.txt"), _layout("tum"), _TUM_PICTURES), "text"
    ),
    "redwood": Target(
        seeds.redwood,
        _files(("trajectory.log", "intrinsic.json"), _layout("redwood"), ("color/0.png", "depth/0.png")),
        "text",
    ),
    "7scenes, bundlefusion": Target(
        seeds.seven_scenes, _files(_SEVEN, _seven_scenes, _SEVEN_PICTURES), "text"
    ),
    "replica": Target(
        seeds.replica,
        _files(
            ("traj.txt", "cam_params.json"),
            _layout("replica"),
            ("results/frame000000.jpg", "results/depth000000.png"),
        ),
        "text",
    ),
    "scannet export": Target(
        seeds.scannet_export, _files(_EXPORT, _layout("scannet"), ("color/0.jpg", "depth/0.png")), "text"
    ),
    "transforms.json": Target(
        seeds.transforms,
        _files(("transforms.json",), _layout("nerfstudio"), ("images/0.png", "depth/0.png")),
        "text",
    ),
    "intrinsics": Target(seeds.intrinsics, _intrinsics, "text"),
    "s3dis text": Target(seeds.s3dis, _s3dis, "text"),
    "obj": Target(seeds.obj, _file("area.obj", _obj), "text"),
    "2d-3d-s view": Target(
        seeds.view_lens, _files(("camera_intrinsics_1.txt", "camera_pose_1_2.txt"), _view), "text"
    ),
    "scannet labels": Target(seeds.scannet_labels, _files(_LABELS, _scannet_labels), "text"),
    "scannet++": Target(seeds.scannetpp, _files(_PLUS, _scannetpp), "text"),
    "scannet label zip": Target(seeds.label_zip, _file("scene_2d-label-filt.zip", _label_zip), "zip"),
    "structured3d zip": Target(
        seeds.structured3d, _file("Structured3D_perspective_full_00.zip", _structured3d), "zip"
    ),
    "pickle": Target(seeds.pickled, _file("values.pth", _pickled), "zip"),
    "ponderv2 scene": Target(seeds.pickled, _pickled_scene, "zip"),
    "ponderv2 lists": Target(seeds.frame_lists, _files(("skip.lst", "train.json"), _frame_lists), "text"),
    "scene store": Target(seeds.dataset_yaml, _store, "text"),
    "scene arrays": Target(seeds.npys, _scene_arrays, "text"),
    "cameras.npz": Target(seeds.cameras, _cameras, "zip"),
    "preset": Target(seeds.presets, _file("tiny.yaml", _preset), "text"),
    "set option": Target(seeds.overrides, _override, "text"),
    "checkpoint": Target(seeds.checkpoints, _file("last.pth", _checkpoint), "zip"),
    "safetensors": Target(seeds.safetensors, _file("last.safetensors", _checkpoint), "text"),
    "camera path": Target(seeds.camera_path, _file("path.json", _camera_path), "text"),
    "embeddings": Target(lambda: seeds.npys() + seeds.safetensors(), _embeddings, "text"),
}
