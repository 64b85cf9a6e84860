"""Folders as the scripts of PonderV2 and Pointcept write them, of a room rendered in closed form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ponderv2.datasets.scannet.scannet20 import NYU40_IDS
from ponderv2.io.images import decode_color, encode_jpeg
from ponderv2.scenes.prepared import DecodedFrame, PreparedCloud
from tests.scenes.closed_form_room import room_cloud, room_frames

MIRROR = np.diag([1.0, -1.0, 1.0, 1.0])
N_POINTS = 1500


def cloud(seed: int = 0) -> PreparedCloud:
    """The points of a room."""
    return room_cloud(N_POINTS, seed)


def views(n_views: int = 4) -> list[DecodedFrame]:
    """The images of a room."""
    return room_frames(n_views, 0)


def seen(frame: DecodedFrame) -> np.ndarray:
    """Colours as a JPEG file gives them back."""
    return decode_color(encode_jpeg(frame.color), "jpeg").copy()


def save(path: Path, values: dict[str, Any]) -> None:
    """torch.save with the folders above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(values, path)


def scannet_pth(root: Path, images: bool = True) -> None:
    """SPLIT/SCENE.pth with 20 and 200 classes, but for test; rgbd/ with colour of twice the size of depth."""
    for number, split in enumerate(("train", "val", "test")):
        one = cloud(number)
        scene = f"scene{number:04d}_00"
        values: dict[str, Any] = {
            "coord": one.coord,
            "color": one.color.astype(np.float32),
            "scene_id": scene,
            "normal": one.normal.astype(np.float64),
        }
        if split != "test":
            values |= {
                "semantic_gt20": one.labels["segment"].astype(np.int64),
                "semantic_gt200": one.labels["segment"].astype(np.int64) + 7,
                "instance_gt": one.labels["instance"].astype(np.int64),
            }
        save(root / split / f"{scene}.pth", values)
        if images:
            scannet_rgbd(root, scene)


def scannet_rgbd(root: Path, scene: str, step: int = 10, n_frames: int = 4) -> None:
    """Frames 0, 10, 20, ... of an export: file names are frame numbers, not places in a list."""
    folder = root / "rgbd" / scene
    for name in ("color", "depth", "pose", "intrinsic", "label"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(views(n_frames)):
        one = number * step
        size = (2 * frame.color.shape[1], 2 * frame.color.shape[0])
        large = Image.fromarray(frame.color).resize(size, Image.Resampling.NEAREST)
        large.save(folder / "color" / f"{one}.jpg", quality=95, subsampling=0)
        Image.fromarray(frame.depth).save(folder / "depth" / f"{one}.png")
        np.savetxt(folder / "pose" / f"{one}.txt", frame.camera_to_world)
        assert frame.semantic is not None
        nyu40 = np.array(NYU40_IDS, np.uint8)[frame.semantic]
        Image.fromarray(nyu40.repeat(2, 0).repeat(2, 1)).save(folder / "label" / f"{one}.png")
        lens = np.eye(4)
        lens[:3, :3] = frame.intrinsics
        np.savetxt(folder / "intrinsic" / "intrinsic_depth.txt", lens)


def view(frame: DecodedFrame, depth_unit: float, mirrored: bool = False) -> dict[str, Any]:
    """One pickled image; `extrinsic` is the pose camera-to-world."""
    depth = np.rint(frame.depth * (0.001 / depth_unit)).astype(np.uint16)
    depth[0, :5] = 65535
    mask = np.ones(depth.shape, bool)
    mask[1, :5] = False
    assert frame.semantic is not None
    return {
        "intrinsic": frame.intrinsics,
        "extrinsic": MIRROR @ frame.camera_to_world if mirrored else frame.camera_to_world,
        "rgb": seen(frame),
        "depth": depth,
        "depth_mask": mask,
        "semantic_map": np.where(mask, frame.semantic, -1).astype(np.int64),
    }


def s3dis_pth(root: Path, areas: tuple[str, ...] = ("Area_1", "Area_5"), images: bool = True) -> None:
    """AREA/ROOM.pth: doubles, labels as columns, no normals; ROOM_rgbd beside it, and one room without."""
    for number, area in enumerate(areas):
        one = cloud(number)
        values = {
            "coord": one.coord.astype(np.float64),
            "color": one.color.astype(np.float64),
            "semantic_gt": one.labels["segment"].astype(np.int64)[:, None],
            "instance_gt": one.labels["instance"].astype(np.int64)[:, None],
            "room_center": np.zeros(3),
        }
        save(root / area / "office_1.pth", values)
        if images:
            save(root / area / "hallway_1.pth", values)
            for index, frame in enumerate(views()):
                save(root / area / "office_1_rgbd" / f"aa{index}_0_{index}.pth", view(frame, 1 / 4000))


def structured3d_pth(root: Path) -> None:
    """SPLIT/SCENE/ROOM.pth of bytes and 16-bit labels, views with mirrored poses."""
    for number, split in enumerate(("train", "val", "test")):
        one = cloud(number)
        room = root / split / f"scene_{number:05d}" / "room_12.pth"
        mirrored = one.coord * np.array([1, -1, 1], np.float32)
        labels = one.labels["segment"].astype(np.int16)[:, None]
        values = {"coord": mirrored, "color": one.color, "normal": one.normal, "semantic_gt": labels}
        save(room, values)
        for index, frame in enumerate(views()):
            content = view(frame, 0.001, mirrored=True)
            save(room.with_name("room_12_rgbd") / f"frame_{index * 5}.pth", content)


def pointcept(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """One array per file."""
    folder.mkdir(parents=True)
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)


def scannet_npy(root: Path) -> None:
    """SPLIT/SCENE/*.npy with classes as 16-bit numbers, as in the hosted archive."""
    for number, split in enumerate(("train", "val", "test")):
        one = cloud(number)
        arrays = {"coord": one.coord, "color": one.color, "normal": one.normal}
        if split != "test":
            arrays |= {
                "segment20": one.labels["segment"].astype(np.int16),
                "segment200": one.labels["segment"].astype(np.int16) + 7,
                "instance": one.labels["instance"].astype(np.int16),
            }
        pointcept(root / split / f"scene{number:04d}_00", arrays)


def s3dis_npy(root: Path) -> None:
    """AREA/ROOM/*.npy, labels as columns, no normals."""
    for number, area in enumerate(("Area_1", "Area_5")):
        one = cloud(number)
        labels = {
            "segment": one.labels["segment"].astype(np.int16)[:, None],
            "instance": one.labels["instance"].astype(np.int16)[:, None],
        }
        pointcept(root / area / "office_1", {"coord": one.coord, "color": one.color, **labels})


def structured3d_npy(root: Path) -> None:
    """SPLIT/SCENE/ROOM/*.npy."""
    for number, split in enumerate(("train", "val", "test")):
        one = cloud(number)
        labels = one.labels["segment"].astype(np.int16)[:, None]
        arrays = {"coord": one.coord, "color": one.color, "normal": one.normal, "segment": labels}
        pointcept(root / split / f"scene_{number:05d}" / "room_12", arrays)


def scannetpp_npy(root: Path) -> None:
    """SPLIT/ID/*.npy with three labels a point, of which the first counts; the list of classes beside it."""
    for number, split in enumerate(("train", "val")):
        one = cloud(number)
        labels = one.labels["segment"].astype(np.int16)[:, None]
        objects = one.labels["instance"].astype(np.int16)[:, None]
        empty = np.full((N_POINTS, 2), -1, np.int16)
        arrays = {"coord": one.coord, "color": one.color, "normal": one.normal}
        arrays |= {"segment": np.hstack([labels, empty]), "instance": np.hstack([objects, empty])}
        pointcept(root / split / f"{number:02d}caf0b9f5", arrays)
    (root / "metadata" / "semantic_benchmark").mkdir(parents=True)
    (root / "metadata" / "semantic_benchmark" / "top100.txt").write_text("wall\nceiling\nfloor\n")


def frame_list(root: Path, split: str, scene: str, frames: list[int]) -> None:
    """The file in which PonderV2 keeps its choice."""
    entries = [{"scene": scene, "frame": frame} for frame in frames]
    (root / f"{split}.json").write_text(json.dumps(entries))
