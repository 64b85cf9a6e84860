"""ScanNet's files written byte by byte: a room of 17 vertices with a block in it, rendered exactly."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np
from PIL import Image

from tests.scenes import box_room

NAME = "scene0001_00"
CORNERS = np.array([[x, y, z] for z in (0, 1) for x, y in ((0, 0), (1, 0), (1, 1), (0, 1))])
COORD = np.concatenate(
    [
        box_room.LOWER + CORNERS * (box_room.UPPER - box_room.LOWER),
        box_room.BLOCK[0] + CORNERS * (box_room.BLOCK[1] - box_room.BLOCK[0]),
        [[0.9, 0.9, 1.5]],
    ]
)
"""Floor and ceiling of the room, bottom and top of the block, and a vertex without faces."""
COLOR = np.arange(17 * 3).reshape(17, 3) * 5
_SIDES = [(0, 1, 2, 3), (4, 7, 6, 5), (0, 4, 5, 1), (1, 5, 6, 2), (2, 6, 7, 3), (3, 7, 4, 0)]
"""Seen from inside, counter-clockwise."""
FACES = np.array(
    [(a, b, c) for a, b, c, _ in _SIDES]
    + [(a, c, d) for a, _, c, d in _SIDES]
    + [(8 + c, 8 + b, 8 + a) for a, b, c, _ in _SIDES]
    + [(8 + d, 8 + c, 8 + a) for a, _, c, d in _SIDES]
)
SEGMENTS = [100] * 4 + [7] * 4 + [55] * 4 + [56] * 4 + [9]
GROUPS = [
    {"id": 0, "objectId": 0, "segments": [100], "label": "floor"},
    {"id": 1, "objectId": 1, "segments": [7], "label": "wall"},
    {"id": 2, "objectId": 2, "segments": [55, 56], "label": "coffee table"},
    {"id": 3, "objectId": 3, "segments": [56, 4711], "label": "heap of things"},
]
SEGMENT20 = [1] * 4 + [0] * 4 + [6] * 4 + [-1] * 5
SEGMENT200 = [2] * 4 + [0] * 4 + [21] * 4 + [-1] * 5
INSTANCE = [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4 + [-1]
ROWS = [
    ("1", "wall", "wall", "1"),
    ("3", "floor", "floor", "2"),
    ("24", "coffee table", "coffee table", "7"),
    ("24", "side tables", "coffee table", "7"),
    ("1170", "dumbbell", "dumbbell", "40"),
    ("1163", "object", "object", "40"),
    ("1163", "object", "stick", "39"),
]
"""Id, raw category, category, NYU40 id. The last contradicts the one before, which counts."""
ALIGNMENT = np.array([[0.8, 0.6, 0, 1.5], [-0.6, 0.8, 0, -0.25], [0, 0, 1, 0.125], [0, 0, 0, 1]])
LARGE_K = np.array([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1]]) @ box_room.K
LARGE = (2 * box_room.WIDTH, 2 * box_room.HEIGHT)


def ply_bytes(label: Collection[int] | None = None, names: str = "vertex_indices") -> bytes:
    """Little-endian, as ScanNet writes it; with `label` the labelled mesh."""
    lines = ["ply", "format binary_little_endian 1.0", "comment by hand", f"element vertex {len(COORD)}"]
    lines += [f"property float {axis}" for axis in "xyz"]
    lines += [f"property uchar {channel}" for channel in ("red", "green", "blue", "alpha")]
    lines += ["property ushort label"] if label is not None else []
    lines += [f"element face {len(FACES)}", f"property list uchar int {names}", "end_header"]
    data = "\n".join(lines).encode() + b"\n"
    labels = list(label) if label is not None else [None] * len(COORD)
    for place, color, one in zip(COORD, COLOR, labels, strict=True):
        data += struct.pack("<3f4B", *place, *color, 255) + (b"" if one is None else struct.pack("<H", one))
    return data + b"".join(struct.pack("<B3i", 3, *face) for face in FACES)


def write_table(path: Path, rows: Collection[tuple[str, str, str, str]] = tuple(ROWS)) -> None:
    """Tab-separated, with columns that nobody reads."""
    lines = ["id\traw_category\tcategory\tcount\tnyu40id\teigen13id"]
    lines += [f"{number}\t{raw}\t{category}\t5\t{nyu40}\t" for number, raw, category, nyu40 in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def write_scene(folder: Path, labels: bool = True) -> Path:
    """Mesh and facts; with `labels` segments and groups."""
    folder.mkdir(parents=True)
    name = folder.name
    (folder / f"{name}_vh_clean_2.ply").write_bytes(ply_bytes())
    numbers = " ".join(f"{one:f}" for one in ALIGNMENT.ravel())
    alignment = f"axisAlignment = {numbers} \n" if labels else ""
    (folder / f"{name}.txt").write_text(f"{alignment}colorHeight = 120\nsceneType = Office\n")
    if labels:
        segments = {"params": {"kThresh": "0.0001"}, "sceneId": name, "segIndices": SEGMENTS}
        (folder / f"{name}_vh_clean_2.0.010000.segs.json").write_text(json.dumps(segments))
        groups = {"sceneId": f"scannet.{name}", "segGroups": GROUPS}
        (folder / f"{name}.aggregation.json").write_text(json.dumps(groups))
    return folder


def sens_bytes(
    taken: list[box_room.Shot],
    version: int = 4,
    kinds: tuple[int, int] = (2, 1),
    lost: Collection[int] = (),
    large: bool = True,
) -> bytes:
    """Colour of twice the size of depth (or of the same); lost frames carry minus infinity."""
    matrix, size = (LARGE_K, LARGE) if large else (box_room.K, (box_room.WIDTH, box_room.HEIGHT))
    cameras = []
    for one in (matrix, np.eye(3), box_room.K, np.eye(3)):
        wide = np.eye(4)
        wide[:3, :3] = one
        cameras.append(struct.pack("<16f", *wide.ravel()))
    data = struct.pack("<IQ", version, 9) + b"StructSen" + b"".join(cameras)
    data += struct.pack("<2i", *kinds) + struct.pack("<4I", *size, box_room.WIDTH, box_room.HEIGHT)
    data += struct.pack("<fQ", 1000.0, len(taken))
    for index, shot in enumerate(taken):
        color = color_bytes(box_room.shoot(shot.pose, matrix, size).color, kinds[0])
        raw = np.rint(shot.depth * 1000).astype("<u2").tobytes()
        depth = zlib.compress(raw) if kinds[1] == 1 else raw
        pose = [-np.inf] * 16 if index in lost else shot.pose.ravel()
        data += struct.pack("<16f", *pose) + struct.pack(
            "<4Q", 33 * index, 33 * index, len(color), len(depth)
        )
        data += color + depth
    if version == 4:
        data += struct.pack("<Q", 2) + 2 * struct.pack("<15dQ", *range(15), 7)
    return data


def color_bytes(color: np.ndarray, kind: int) -> bytes:
    """Raw, PNG or JPEG."""
    if kind == 0:
        return color.tobytes()
    target = io.BytesIO()
    Image.fromarray(color).save(target, format="PNG" if kind == 1 else "JPEG", quality=95)
    return target.getvalue()


def png_bytes(values: np.ndarray, claimed: tuple[int, int] | None = None) -> bytes:
    """16 bits, one channel, no filters; `claimed` is the size that the header tells."""
    height, width = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    data = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">2I5B", *(claimed or (width, height)), 16, 0, 0, 0, 0)
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data


def label_ids() -> np.ndarray:
    """Of an image: floor on the left, a coffee table on the right, above them an id that nobody knows."""
    ids = np.full((LARGE[1], LARGE[0]), 3, np.uint16)
    ids[:, LARGE[0] // 2 :] = 24
    ids[:10] = 60000
    return ids


def write_labels(folder: Path, members: dict[str, bytes], kind: str = "2d-label-filt") -> Path:
    """A zip of label images."""
    path = folder / f"{folder.name}_{kind}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path
