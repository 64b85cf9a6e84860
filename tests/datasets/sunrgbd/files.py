"""SUN RGB-D written in the layouts of its authors, VoteNet and mmdetection3d, from a few random images."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from PIL import Image

WIDTH, HEIGHT = 40, 30
INTRINSICS = np.array([[35.0, 0, 20.5], [0, 34.0, 15.5], [0, 0, 1]])
AUTHORS = "/n/fs/sun3d/data/SUNRGBD"


def tilt_of(angle: float, roll: float) -> np.ndarray:
    """A rotation about x, then a small one about y."""
    cosine, sine, c, s = np.cos(angle), np.sin(angle), np.cos(roll), np.sin(roll)
    about_x = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ about_x


@dataclass(frozen=True)
class Labelled:
    """An object as the labels say it."""

    name: str
    center: tuple[float, float, float]
    half: tuple[float, float, float]
    """Width, length, height."""
    heading: tuple[float, float]


@dataclass(frozen=True)
class Recorded:
    """One image."""

    split: str
    color: np.ndarray
    depth: np.ndarray
    """Millimetres."""
    tilt: np.ndarray = field(default_factory=lambda: tilt_of(-0.2, 0.05))
    objects: tuple[Labelled, ...] = ()


OBJECTS = (
    Labelled("bed", (0.4, 2.0, -0.5), (0.9, 1.1, 0.4), (np.cos(2.6), np.sin(2.6))),
    Labelled("chair", (-0.6, 1.8, -0.4), (0.3, 0.25, 0.5), (0.2, -0.7)),
    Labelled("lamp", (1.0, 2.5, 0.2), (0.1, 0.1, 0.3), (1.0, 0.0)),
)


def recorded(number: int, split: str, objects: tuple[Labelled, ...] = OBJECTS) -> Recorded:
    """Random pixels; some measure nothing, one lies beyond 8 m."""
    rng = np.random.default_rng(number)
    depth = rng.integers(600, 4000, (HEIGHT, WIDTH)).astype(np.uint16)
    depth[rng.random(depth.shape) < 0.1] = 0
    depth[3, 5] = 9000
    return Recorded(split, rng.integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8), depth, objects=objects)


def images() -> list[Recorded]:
    """Two for training, one of them without boxes, and one for validation."""
    return [recorded(0, "train"), recorded(1, "val"), recorded(2, "train", ())]


def png(values: np.ndarray) -> bytes:
    """Any image."""
    target = io.BytesIO()
    Image.fromarray(values).save(target, format="PNG")
    return target.getvalue()


def mat(**values: Any) -> bytes:
    """A MATLAB file."""
    target = io.BytesIO()
    scipy.io.savemat(target, values, do_compression=True)
    return target.getvalue()


def structs(rows: Sequence[dict[str, Any]]) -> np.ndarray:
    """A structure array of one row."""
    if not rows:
        return np.zeros((0, 0))
    made = np.empty((1, len(rows)), dtype=[(name, object) for name in rows[0]])
    for index, row in enumerate(rows):
        made[0, index] = tuple(row.values())
    return made


def official(
    found: Sequence[Recorded], versions: tuple[str, ...] = ("v1", "v2"), **edits: Any
) -> dict[str, bytes]:
    """The files of the authors; `edits` replaces fields of the first record."""
    files: dict[str, bytes] = {}
    flat: list[dict[str, Any]] = []
    space: list[dict[str, Any]] = []
    lists: dict[str, list[str]] = {"train": [], "val": []}
    for number, one in enumerate(found):
        folder = f"kv1/NYUdata/NYU{number:04d}"
        lists[one.split].append(f"{AUTHORS}/{folder}")
        files[f"SUNRGBD/{folder}/image/NYU.png"] = png(one.color)
        files[f"SUNRGBD/{folder}/depth/NYU.png"] = png((one.depth << 3) | (one.depth >> 13))
        boxes = structs(
            [
                {
                    "basis": np.eye(3),
                    "coeffs": np.array([item.half]) * (-1, 1, 1),
                    "centroid": np.array([item.center]),
                    "classname": item.name,
                    "orientation": np.array([[*item.heading, 0.0]]),
                }
                for item in one.objects
            ]
        )
        row = {
            "groundtruth3DBB": boxes,
            "depthpath": f"{AUTHORS}/{folder}/depth/NYU.png",
            "rgbpath": f"{AUTHORS}/{folder}/image/NYU.png",
            "Rtilt": one.tilt,
            "K": INTRINSICS,
        }
        space.append(row | (edits if number == 0 else {}))
        flat.append(
            {"groundtruth2DBB": structs([{"classname": i.name, "gtBb2D": np.ones(4)} for i in one.objects])}
        )
    if "v1" in versions:
        both = structs([a | b for a, b in zip(space, flat, strict=True)])
        files["SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat"] = mat(SUNRGBDMeta=both)
    if "v2" in versions:
        files["SUNRGBDMeta3DBB_v2.mat"] = mat(SUNRGBDMeta=structs(space))
        files["SUNRGBDMeta2DBB_v2.mat"] = mat(SUNRGBDMeta2DBB=structs(flat))
    cells = {
        name: np.array([lists[split]], object) for name, split in (("alltrain", "train"), ("alltest", "val"))
    }
    files["SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"] = mat(**cells)
    return files


def published_points(one: Recorded) -> np.ndarray:
    """x, y, z, r, g, b pixel by pixel with MATLAB's count from 1, as the toolbox makes points."""
    rows = []
    for v in range(1, HEIGHT + 1):
        for u in range(1, WIDTH + 1):
            depth = min(one.depth[v - 1, u - 1] / 1000.0, 8.0)
            if depth > 0:
                x = (u - INTRINSICS[0, 2]) * depth / INTRINSICS[0, 0]
                y = (v - INTRINSICS[1, 2]) * depth / INTRINSICS[1, 1]
                rows.append([*(one.tilt @ (x, depth, -y)), *(one.color[v - 1, u - 1] / 255.0)])
    return np.array(rows)


def _column_by_column(matrix: np.ndarray) -> str:
    return " ".join(f"{one:.9f}" for one in matrix.T.ravel())


def text(found: Sequence[Recorded]) -> dict[str, bytes]:
    """VoteNet's sunrgbd_trainval/."""
    files: dict[str, bytes] = {}
    lists: dict[str, list[int]] = {"train": [], "val": []}
    for number, one in enumerate(found, 1):
        name = f"{number:06d}"
        lists[one.split].append(number)
        files[f"depth/{name}.mat"] = mat(instance=published_points(one).astype(np.float32))
        files[f"image/{name}.jpg"] = png(one.color)
        calibration = f"{_column_by_column(one.tilt)}\n{_column_by_column(INTRINSICS)}\n"
        files[f"calib/{name}.txt"] = calibration.encode()
        lines = [
            f"{i.name} 1 2 3 4 " + " ".join(f"{value:.9f}" for value in (*i.center, *i.half, *i.heading))
            for i in one.objects
        ]
        files[f"label/{name}.txt"] = files[f"label_v1/{name}.txt"] = "\n".join(lines).encode()
    for split, numbers in lists.items():
        files[f"{split}_data_idx.txt"] = "\n".join(map(str, numbers)).encode()
    return files


CLASSES = tuple(
    "bed table sofa chair toilet desk dresser night_stand bookshelf bathtub".split()  # noqa: SIM905
)


def _npy(values: np.ndarray) -> bytes:
    target = io.BytesIO()
    np.save(target, values)
    return target.getvalue()


def arrays(found: Sequence[Recorded]) -> dict[str, bytes]:
    """VoteNet's arrays: half length, width, height, and a heading of the other sense."""
    files: dict[str, bytes] = {}
    for number, one in enumerate(found, 1):
        folder = f"sunrgbd_pc_bbox_votes_50k_v1_{one.split}/{number:06d}"
        target = io.BytesIO()
        np.savez_compressed(target, pc=published_points(one))
        files[f"{folder}_pc.npz"] = target.getvalue()
        rows = [
            [
                *i.center,
                i.half[1],
                i.half[0],
                i.half[2],
                -np.arctan2(i.heading[1], i.heading[0]),
                CLASSES.index(i.name),
            ]
            for i in one.objects
            if i.name in CLASSES
        ]
        files[f"{folder}_bbox.npy"] = _npy(np.array(rows, np.float64).reshape(len(rows), 8))
    return files


def infos(found: Sequence[Recorded]) -> dict[str, bytes]:
    """mmdetection3d 1.x."""
    files: dict[str, bytes] = {}
    lists: dict[str, list[dict[str, Any]]] = {"train": [], "val": []}
    to_camera = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    for number, one in enumerate(found, 1):
        name = f"{number:06d}"
        files[f"points/{name}.bin"] = published_points(one).astype("<f4").tobytes()
        files[f"sunrgbd_trainval/image/{name}.jpg"] = png(one.color)
        matrix = np.eye(4)
        matrix[:3, :3] = INTRINSICS @ to_camera @ one.tilt.T
        instances = [
            {
                "bbox": [1.0, 2.0, 3.0, 4.0],
                "bbox_label": CLASSES.index(i.name),
                "bbox_3d": [
                    *i.center, *(2 * i.half[axis] for axis in (1, 0, 2)),
                    np.arctan2(i.heading[1], i.heading[0]),
                ],
                "bbox_label_3d": CLASSES.index(i.name),
            }
            for i in one.objects
            if i.name in CLASSES
        ]  # fmt: skip
        lists[one.split].append(
            {
                "lidar_points": {"num_pts_feats": 6, "lidar_path": f"{name}.bin"},
                "images": {
                    "CAM0": {"img_path": f"{name}.jpg", "height": HEIGHT, "width": WIDTH, "depth2img": matrix}
                },
                "instances": instances,
            }
        )
    about = {"categories": {name: number for number, name in enumerate(CLASSES)}, "dataset": "sunrgbd"}
    for split, rows in lists.items():
        if rows:
            files[f"sunrgbd_infos_{split}.pkl"] = pickle.dumps({"metainfo": about, "data_list": rows})
    return files


LAYOUTS = {"official": official, "text": text, "arrays": arrays, "infos": infos}


def write(root: Path, files: dict[str, bytes]) -> Path:
    """The files below a folder."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root
