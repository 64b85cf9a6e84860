"""Sound files of every format, a few hundred bytes each where that is possible."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from tests.datasets.sunrgbd import files as sunrgbd

SEPARATOR = b"\n%%%%\n"
"""Between the files of an input that are read together."""
K = np.array([[9.0, 0, 3.5], [0, 9.0, 2.5], [0, 0, 1]])
POSE = np.array([[1.0, 0, 0, 0.5], [0, 0.6, -0.8, 1.25], [0, 0.8, 0.6, 1.5], [0, 0, 0, 1]])
WIDTH, HEIGHT = 8, 6


def together(*parts: bytes) -> bytes:
    """Several files as one input."""
    return SEPARATOR.join(parts)


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def numbers(values: Any) -> bytes:
    """A matrix as text."""
    rows = np.atleast_2d(np.asarray(values, float))
    return "\n".join(" ".join(f"{one:.6g}" for one in row) for row in rows).encode() + b"\n"


def color(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Noise."""
    return _rng().integers(0, 255, (height, width, 3)).astype(np.uint8)


def picture(values: np.ndarray, form: str, **options: Any) -> bytes:
    """PNG or JPEG."""
    target = io.BytesIO()
    Image.fromarray(values).save(target, format=form, **options)
    return target.getvalue()


def depth() -> np.ndarray:
    """Millimetres."""
    return _rng().integers(500, 3000, (HEIGHT, WIDTH)).astype(np.uint16)


def depth_pngs() -> list[bytes]:
    """16 and 8 bits, 1 bit, a palette."""
    values = depth()
    small = (values % 255).astype(np.uint8)
    image = Image.fromarray(small)
    target = io.BytesIO()
    image.convert("P").save(target, format="PNG")
    bits = io.BytesIO()
    image.convert("1").save(bits, format="PNG")
    return [picture(values, "PNG"), picture(small, "PNG"), target.getvalue(), bits.getvalue()]


def color_pictures() -> list[bytes]:
    """JPEG of several kinds, and PNG."""
    wide = color(24, 16)
    return [
        picture(wide, "JPEG"), picture(wide, "JPEG", progressive=True), picture(wide[..., 0], "JPEG"),
        picture(wide, "PNG"),
    ]  # fmt: skip


def sens() -> list[bytes]:
    """Versions and compressions."""
    found = []
    raw = depth().tobytes()
    for version, kinds in ((4, (2, 1)), (3, (1, 0)), (4, (0, 1))):
        wide = np.eye(4, dtype="<f4")
        wide[:3, :3] = K
        one = np.eye(4, dtype="<f4").tobytes()
        data = struct.pack("<IQ", version, 4) + b"room" + wide.tobytes() + one + wide.tobytes() + one
        data += struct.pack("<ii4IfQ", *kinds, WIDTH, HEIGHT, WIDTH, HEIGHT, 1000.0, 2)
        shown = (color().tobytes(), picture(color(), "PNG"), picture(color(), "JPEG"))[kinds[0]]
        packed = zlib.compress(raw) if kinds[1] else raw
        for index in range(2):
            data += POSE.astype("<f4").tobytes() + struct.pack("<4Q", index, index, len(shown), len(packed))
            data += shown + packed
        found.append(data + (struct.pack("<Q", 0) if version == 4 else b""))
    return found


def ply() -> list[bytes]:
    """ASCII, both byte orders, triangles and polygons."""
    names = ("float x", "float y", "float z", "uchar red", "uchar green", "uchar blue")
    rows = [(*_rng().random(3), 9, 99, 200) for _ in range(6)]

    def header(form: str, faces: int) -> bytes:
        lines = ["ply", f"format {form} 1.0", "comment made by hand", f"element vertex {len(rows)}"]
        lines += [f"property {name}" for name in names]
        lines += [f"element face {faces}", "property list uchar int vertex_indices"] if faces else []
        return ("\n".join([*lines, "end_header"]) + "\n").encode()

    text = "".join(" ".join(f"{one:.4g}" for one in row) + "\n" for row in rows).encode()
    found = [header("ascii", 2) + text + b"3 0 1 2\n4 0 1 2 3\n", header("ascii", 0) + text]
    for form, order in (("binary_little_endian", "<"), ("binary_big_endian", ">")):
        body = b"".join(struct.pack(order + "3f3B", *row) for row in rows)
        found.append(header(form, 2) + body + struct.pack(order + "B3iB3i", 3, 0, 1, 2, 3, 3, 4, 5))
        found.append(header(form, 2) + body + struct.pack(order + "B4iB3i", 4, 0, 1, 2, 3, 3, 3, 4, 5))
    return found


def pcd() -> list[bytes]:
    """ascii, binary, binary_compressed (one run of literals)."""
    rows = np.array([(*one, 1.5) for one in _rng().random((5, 3))], "<f4")
    head = "VERSION .7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\nWIDTH 5\nHEIGHT 1\n"
    head += "VIEWPOINT 0 0 0 1 0 0 0\nPOINTS 5\nDATA "
    columns = rows.T.tobytes()
    pieces = [columns[at : at + 32] for at in range(0, len(columns), 32)]
    packed = b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)
    return [
        (head + "ascii\n").encode() + numbers(rows),
        (head + "binary\n").encode() + rows.tobytes(),
        (head + "binary_compressed\n").encode() + struct.pack("<II", len(packed), len(columns)) + packed,
    ]


def npy(values: np.ndarray | None = None) -> bytes:
    """One array."""
    target = io.BytesIO()
    np.save(target, _rng().random((5, 6)).astype(np.float32) if values is None else values)
    return target.getvalue()


def npys() -> list[bytes]:
    """Arrays of points."""
    points = _rng().random((5, 9))
    return [npy(), npy(points), npy(points[:, :3].astype(">f4")), npy((points * 99).astype(np.int32)[:, :6])]


def npz(**values: Any) -> bytes:
    """Several arrays."""
    target = io.BytesIO()
    np.savez(target, **values)
    return target.getvalue()


def cameras() -> list[bytes]:
    """frames/cameras.npz of a prepared scene."""
    two = {
        "ids": np.array(["000000", "000001"]), "K": np.stack([K, K]),
        "camera_to_world": np.stack([POSE, POSE]),
        "size": np.array([[WIDTH, HEIGHT]] * 2), "depth_scale": np.array([0.001, 0.001]),
        "held_out": np.array([False, True]),
    }  # fmt: skip
    target = io.BytesIO()
    np.savez_compressed(target, **two)
    return [npz(**two), target.getvalue()]


def transforms() -> list[bytes]:
    """transforms.json, one camera for all or one per frame."""
    lens = {"fl_x": 9.0, "fl_y": 9.0, "cx": 4.0, "cy": 3.0, "w": WIDTH, "h": HEIGHT, "k1": 0.0, "k2": 0.01}
    frame = {"file_path": "images/0.png", "depth_file_path": "depth/0.png", "transform_matrix": POSE.tolist()}
    whole = {
        **lens, "camera_model": "OPENCV", "applied_transform": POSE[:3].tolist(), "applied_scale": 2.0,
        "frames": [frame, frame],
    }  # fmt: skip
    angle = {"camera_angle_x": 0.8, "depth_unit_scale_factor": 0.001, "frames": [{**frame, "cx": 4.5}]}
    return [json.dumps(one).encode() for one in (whole, angle)]


def camera_path() -> list[bytes]:
    """For `ponder render --cameras`."""
    frame = {"name": "first", "camera_to_world": POSE.tolist()}
    whole = {"width": 8, "height": 6, "intrinsics": K.tolist(), "frames": [frame]}
    single = {"frames": [{**frame, "width": 8, "height": 6, "intrinsics": K.tolist()}]}
    return [json.dumps(whole).encode(), json.dumps(single).encode()]


def tum() -> list[bytes]:
    """rgb.txt, depth.txt and groundtruth.txt."""
    rgb = b"# time file\n1.000 rgb/0.png\n1.033 rgb/1.png\n"
    lists = b"1.004 depth/0.png\n1.037 depth/1.png\n"
    truth = b"# t x y z qx qy qz qw\n1.006 0.5 1.25 1.5 0 0 0 1\n1.040,0.5,1.25,1.5,0.1,0.2,0.3,0.9\n"
    return [together(rgb, lists, truth)]


def redwood() -> list[bytes]:
    """trajectory.log and Open3D's camera."""
    log = b"0 0 1\n" + numbers(POSE) + b"1 1 2\n" + numbers(POSE)
    camera = {"width": WIDTH, "height": HEIGHT, "intrinsic_matrix": K.T.ravel().tolist()}
    return [together(log, json.dumps(camera).encode())]


def seven_scenes() -> list[bytes]:
    """Poses of two frames, camera, and BundleFusion's info.txt."""
    wide = np.eye(4)
    wide[:3, :3] = K
    words = " ".join(map(str, wide.ravel()))
    lines = [f"m_{kind}Width = {WIDTH}\nm_{kind}Height = {HEIGHT}" for kind in ("color", "depth")]
    lines += [f"m_calibration{kind}Intrinsic = {words}" for kind in ("Color", "Depth")]
    info = "\n".join([*lines, "m_depthShift = 1000"]).encode()
    return [together(numbers(POSE), numbers(POSE[:3]), numbers(K), info)]


def replica() -> list[bytes]:
    """traj.txt and cam_params.json."""
    camera = {"w": WIDTH, "h": HEIGHT, "fx": 9.0, "fy": 9.0, "cx": 3.5, "cy": 2.5, "scale": 6553.5}
    line = numbers(POSE.reshape(1, 16))
    return [together(line + line, json.dumps({"camera": camera}).encode())]


def scannet_export() -> list[bytes]:
    """Pose, intrinsics and extrinsics."""
    wide = np.eye(4)
    wide[:3, :3] = K
    return [together(numbers(POSE), numbers(wide), numbers(K), numbers(np.eye(4)), numbers(POSE))]


def intrinsics() -> list[bytes]:
    """3x3, four numbers, and JSON (told apart by the first byte)."""
    camera = {"width": WIDTH, "height": HEIGHT, "intrinsic_matrix": K.T.ravel().tolist()}
    return [numbers(K), b"9 9 3.5 2.5", json.dumps(camera).encode()]


def s3dis() -> list[bytes]:
    """Points with colours; one with a damaged line, as in the archive."""
    rows = b"".join(b"%.3f %.3f %.3f %d %d %d\n" % (*one, 10, 200, 30) for one in _rng().random((6, 3)))
    return [rows, rows + b"1.2\x0034 5.1 2.2 1\x10 2 3\n1.0 2.0 3.0 4 5 6\n"]


def obj() -> list[bytes]:
    """A Wavefront surface."""
    return [b"# mesh\nv 0 0 0\nv 1 0 0\nv 0 1 0.5\nv 1 1 0\nvn 0 0 1\nf 1/1/1 2/2/1 3/3/1\nf -1 -2 -3 -4\n"]


def view_lens() -> list[bytes]:
    """A camera of 2D-3D-S and its pose."""
    return [together(numbers([[8, 6, 9, 9, 3.5, 2.5, 0.1, -0.1, 0, 0, 0]]), numbers(POSE))]


def scannet_labels() -> list[bytes]:
    """Label table, segments, groups, facts of a scene, mesh with NYU40 ids."""
    table = (
        b"id\traw_category\tcategory\tcount\tnyu40id\n1\twall\twall\t5\t1\n24\tcoffee table\ttable\t5\t7\n"
    )
    segments = json.dumps({"segIndices": [7, 7, 9, 9, 9, 4]}).encode()
    group = {"id": 0, "objectId": 0, "label": "wall", "segments": [7, 9]}
    groups = json.dumps({"segGroups": [group, {**group, "id": 1, "objectId": 1, "segments": [4]}]}).encode()
    facts = b"axisAlignment = " + b" ".join(b"%.4f" % one for one in np.eye(4).ravel()) + b"\nsceneType = x\n"
    return [together(table, segments, groups, facts)]


def scannetpp() -> list[bytes]:
    """top100.txt, map_benchmark.csv, a list of scenes, segments_anno.json."""
    group = {"objectId": 3, "id": 3, "label": "wall", "segments": [1, 2]}
    groups = json.dumps({"segGroups": [group]}).encode()
    return [
        together(b"wall\nfloor\n", b"class,semantic_map_to\nwall,\nrug,floor\nx,None\n", b"aa00\n", groups)
    ]


def label_zip() -> list[bytes]:
    """2D labels of a ScanNet scene."""
    import zipfile

    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(2):
            archive.writestr(f"label-filt/{number}.png", picture(depth(), "PNG"))
    return [target.getvalue()]


def structured3d() -> list[bytes]:
    """An archive with one view and one panorama."""
    import zipfile

    base = "Structured3D/scene_00007/2D_rendering/123"
    pose = b"100 200 1500 0 1 0 0 0 1 0.7 0.5 1"
    files = {
        f"{base}/panorama/camera_xyz.txt": b"100 200 1500",
        f"{base}/perspective/full/0/camera_pose.txt": pose,
    }
    for place in (f"{base}/panorama/full", f"{base}/perspective/full/0"):
        files[f"{place}/rgb_rawlight.png"] = picture(color(), "PNG")
        files[f"{place}/depth.png"] = picture(depth(), "PNG")
        files[f"{place}/semantic.png"] = picture((depth() % 40).astype(np.uint8), "PNG")
    found = []
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", method) as archive:
            for name, data in files.items():
                archive.writestr(zipfile.ZipInfo(name), data, method)
        found.append(target.getvalue())
    return found


def nuscenes() -> list[bytes]:
    """The tables of a short drive, and its scan of the first key frame."""
    import tempfile

    from tests.datasets.drives.nuscenes_drives import write_drives

    with tempfile.TemporaryDirectory() as folder:
        made = write_drives(Path(folder), ("scene-0061",), n_samples=3)
        tables = [Path(folder, made.version, f"{name}.json").read_bytes() for name in NUSCENES_TABLES]
        return [together(*tables)]


def nuscenes_infos() -> list[bytes]:
    """Pickles of other programs."""
    import tempfile

    from tests.datasets.drives.nuscenes_drives import write_drives
    from tests.datasets.drives.test_infos import FLAVOURS, info

    with tempfile.TemporaryDirectory() as folder:
        made = write_drives(Path(folder), ("scene-0061",), n_samples=3)
        return [pickle.dumps([info(made, number, one) for number in range(2)]) for one in FLAVOURS]


def vehicle() -> list[bytes]:
    """drive.json and a scan."""
    place = {"translation": [1.0, 2.0, 0.5], "rotation": [1.0, 0.0, 0.0, 0.0]}
    top = {"kind": "lidar", "sensor_to_vehicle": place, "columns": ["intensity"]}
    one = {"sensor": "top", "time": 0.0, "file": "top.bin", "vehicle_to_world": np.eye(4).tolist()}
    box = {"time": 0.0, "center": [5, 1, 1], "size": [4, 2, 1.5], "yaw": 0.3, "category": "car"}
    drive = {"sensors": {"top": top}, "measurements": [one], "boxes": [box], "box_classes": ["car"]}
    return [together(json.dumps(drive).encode(), _rng().normal(size=(6, 4)).astype("<f4").tobytes())]


def kitti() -> list[bytes]:
    """A scan, its calibration and its labels."""
    names = ("P0", "P1", "P2", "P3", "Tr_velo_to_cam", "Tr_imu_to_velo")
    lines = [f"{name}: " + " ".join(str(0.5 * i) for i in range(12)) for name in names]
    lines.append("R0_rect: 1 0 0 0 1 0 0 0 1")
    label = "Car 0.00 0 -1.58 587.01 173.33 614.12 200.12 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n"
    points = _rng().normal(size=(6, 4)).astype("<f4").tobytes()
    return [together(points, "\n".join(lines).encode(), label.encode())]


DETECTION_ARRAYS = tuple(
    f"scene0001_00_{kind}.npy" for kind in ("vert", "sem_label", "ins_label", "bbox", "axis_align_matrix")
)


def detection_arrays() -> list[bytes]:
    """Points, labels, boxes and alignment of a scene of ScanNet."""
    values = (
        _rng().random((9, 6)),
        np.full(9, 5),
        np.ones(9, np.int64),
        np.array([[0.5, 0.5, 0.5, 1, 1, 1, 5], [0.0] * 7]),
        np.eye(4),
    )
    parts = []
    for one in values:
        target = io.BytesIO()
        np.save(target, one)
        parts.append(target.getvalue())
    return [together(*parts)]


def mat() -> list[bytes]:
    """Tables of SUN RGB-D, packed and not."""
    found = sunrgbd.official(sunrgbd.images())
    plain = io.BytesIO()
    savemat(plain, {"SUNRGBDMeta": np.eye(3), "instance": np.zeros((4, 6), np.float32)})
    return [
        found["SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat"],
        found["SUNRGBDMeta3DBB_v2.mat"],
        plain.getvalue(),
    ]


def sunrgbd_text() -> list[bytes]:
    """Calibration and labels of an image."""
    found = sunrgbd.text(sunrgbd.images())
    return [together(found["calib/000001.txt"], found["label/000001.txt"])]


SEMANTICKITTI = tuple(
    f"sequences/00/{name}"
    for name in ("calib.txt", "poses.txt", "times.txt", "velodyne/000001.bin", "labels/000001.label")
)


def semantickitti() -> list[bytes]:
    """Calibration, poses and times of two scans, the later scan and its labels."""
    names = ("P0", "P2", "Tr")
    calibration = "".join(f"{name}: 700 0 600 0 0 700 180 0 0 0 1 0\n" for name in names).encode()
    poses = b"1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0 1.5 0 1 0 0 0 0 1 0\n"
    points = _rng().normal(size=(6, 4)).astype("<f4").tobytes()
    labels = (np.arange(6, dtype="<u4") * 10).tobytes()
    return [together(calibration, poses, b"0.0\n0.1\n", points, labels)]


DGP = (
    "scene_dataset_v1.0.json", "a/scene_a.json", "a/calibration/c.json", "a/ontology/o.json",
    "a/boxes/LIDAR/0.json", "a/top.bin",
)  # fmt: skip


def dgp() -> list[bytes]:
    """A list of scenes, a scene, its calibration, its classes, the boxes of a scan and the scan."""
    turn, place = dict(zip(("qw", "qx", "qy", "qz"), (1, 0, 0, 0), strict=True)), {"x": 1, "y": 2, "z": 3}
    pose = {"rotation": turn, "translation": place}
    cloud = {
        "filename": "top.bin", "point_format": ["X", "Y", "Z", "INTENSITY"], "pose": pose,
        "annotations": {"1": "boxes/LIDAR/0.json"},
    }  # fmt: skip
    stamp = {"name": "LIDAR", "timestamp": "2020-05-15T00:38:58.203752Z"}
    scene = {
        "samples": [{"calibration_key": "c", "datum_keys": ["k"]}],
        "data": [{"id": stamp, "key": "k", "datum": {"point_cloud": cloud}}],
    }
    lens = {"fx": 9.0, "fy": 9.0, "cx": 3.5, "cy": 2.5}
    box = {"length": 4.0, "width": 2.0, "height": 1.5, "pose": pose}
    values = (
        {"scene_splits": {"0": {"filenames": ["a/scene_a.json"]}}}, scene,
        {"names": ["LIDAR"], "intrinsics": [lens]}, {"items": [{"id": 3, "name": "Car"}]},
        {"annotations": [{"box": box, "class_id": 3, "instance_id": 1, "num_points": 4}]},
    )  # fmt: skip
    points = _rng().normal(size=(6, 4)).astype("<f4").tobytes()
    return [together(*(json.dumps(one).encode() for one in values), points)]


def scans() -> list[bytes]:
    """Rows of five numbers."""
    return [_rng().normal(size=(rows, 5)).astype("<f4").tobytes() for rows in (1, 40)]


NUSCENES_TABLES = (
    "scene", "sample", "sample_data", "sensor", "calibrated_sensor", "ego_pose", "sample_annotation",
    "instance", "category", "attribute", "lidarseg", "log",
)  # fmt: skip


def pickled() -> list[bytes]:
    """Scenes and images as PonderV2 and Pointcept pickle them."""
    import torch

    rng = _rng()
    scene = {
        "coord": rng.random((5, 3)).astype(np.float32), "color": rng.random((5, 3)).astype(np.float32) * 255,
        "normal": rng.random((5, 3)), "semantic_gt20": np.arange(5), "instance_gt": np.arange(5)[:, None],
        "scene_id": "scene0000_00",
    }  # fmt: skip
    view = {
        "intrinsic": K, "extrinsic": POSE, "rgb": color(), "depth": depth(),
        "depth_mask": np.ones((HEIGHT, WIDTH), bool), "semantic_map": (depth() % 20).astype(np.int64),
    }  # fmt: skip
    found = [pickle.dumps(one, protocol) for one in (scene, view) for protocol in (2, 4, 5)]
    for values in (scene, {name: torch.from_numpy(np.asarray(one)) for name, one in view.items()}):
        for new in (True, False):
            target = io.BytesIO()
            torch.save(values, target, _use_new_zipfile_serialization=new)
            found.append(target.getvalue())
    return found


def checkpoints() -> list[bytes]:
    """Of a tiny model: ours without its checksum, a published container, the older stream of torch."""
    import torch

    state = {"backbone.conv_input.0.weight": torch.zeros(2, 3), "backbone.final.bias": torch.zeros(2)}
    ours = {"format": "ponder", "format_version": 1, "kind": "pretext", "config": {"model": {}}, "step": 3}
    found = []
    for values in ({**ours, "model": state}, {"state_dict": state, "epoch": 5}):
        for new in (True, False):
            target = io.BytesIO()
            torch.save(values, target, _use_new_zipfile_serialization=new)
            found.append(target.getvalue())
    return found


def safetensors() -> list[bytes]:
    """Bare and with settings."""
    import torch

    from ponderv2.training.weights import safetensors_bytes

    state = {"a": torch.zeros(2, 3), "b": torch.zeros(2, dtype=torch.int64)}
    return [safetensors_bytes(state, None), safetensors_bytes(state, {"format": "ponder", "kind": "pretext"})]


def dataset_yaml() -> list[bytes]:
    """Of a scene store, and the record of a scene and the report."""
    info = b"name: rooms\n"
    info += b"class_names: [wall, floor]\nclass_colors: [[1, 2, 3], [4, 5, 6]]\n"
    info += b"label_field: segment\nsplits: [train, val]\nversion: '1'\n"
    info += b"other_labels:\n  segment200:\n    class_names: [a]\n"
    record = b'{"fingerprint": "abc", "frames": 2, "points": 5, "notes": ["x"], "repairs": []}'
    return [together(info, record, b'{"scenes": {"train/room": {"check": {"n": 1}}}}')]


def presets() -> list[bytes]:
    """Settings of a run."""
    text = b"extends: demo\ntraining:\n  steps: 3\n  precision: fp32\n  optimiser: {kind: sgd, lr: 1.0e-3}\n"
    text += b"model:\n  renderer:\n    sampler: {n_coarse: 8}\ndata: {features: [color, normal]}\n"
    return [text, b"training:\n  steps: 5\n"]


def overrides() -> list[bytes]:
    """`--set` arguments."""
    return [b"training.steps=3", b"training.optimiser={kind: sgd, lr: 1.0e-3}", b"data.augment.0.kind=flip"]


def frame_lists() -> list[bytes]:
    """skip.lst and SPLIT.json of PonderV2."""
    return [together(b"scene0000_00 40\nscene0000_01 50\n", b'[{"scene": "scene0000_00", "frame": 40}]')]
