"""A room as Structured3D would store it: images solved in closed form, zip archives written byte by byte.

The room is not its own mirror image: facing the far wall (+y), a door is right and a picture left.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

LOWER, UPPER = np.array([1.0, -2.0, 0.0]), np.array([6.0, 2.0, 2.8])
TABLE = np.array([4.6, 0.2, 0.0]), np.array([5.6, 1.2, 0.75])
CENTRE = np.array([3.2, -0.3, 1.5])
"""Of the panorama."""
HALF_ANGLE = (0.7, float(np.arctan(np.tan(0.7) * 90 / 160)))
WIDTH, HEIGHT, PANORAMA = 160, 90, (384, 192)
WALL, FLOOR, CEILING, TABLE_ID, DOOR, PICTURE = 1, 2, 22, 7, 8, 11
COLORS = {
    WALL: (200, 200, 190),
    FLOOR: (120, 80, 40),
    CEILING: (240, 240, 240),
    TABLE_ID: (40, 160, 60),
    DOOR: (220, 30, 30),
    PICTURE: (30, 30, 220),
}


@dataclass(frozen=True)
class View:
    """Eye, viewing direction and up, metres; the up vector need not be at a right angle."""

    eye: tuple[float, float, float]
    forward: tuple[float, float, float]
    up: tuple[float, float, float] = (0.0, 0.0, 1.0)

    def basis(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Right, up and forward of somebody who looks that way, unit vectors."""
        forward = np.array(self.forward) / np.linalg.norm(self.forward)
        right = np.cross(forward, self.up)
        right /= np.linalg.norm(right)
        return right, np.cross(right, forward), forward


VIEWS = (
    View((3.0, -1.6, 1.5), (0.25, 1.0, -0.15)),
    View((2.2, -1.4, 1.6), (0.7, 1.0, -0.3)),
    View((3.6, -1.5, 1.4), (0.5, 1.0, -0.25)),
    View((1.5, 0.2, 1.5), (1.0, 0.25, -0.2)),
)


def hits(origin: np.ndarray, ray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Parameter t of the first hit of origin + t ray, and the NYU40 id of what is hit."""
    with np.errstate(divide="ignore", invalid="ignore"):
        walls = np.maximum((LOWER - origin) / ray, (UPPER - origin) / ray)
        near, far = (TABLE[0] - origin) / ray, (TABLE[1] - origin) / ray
    enter, leave = np.minimum(near, far).max(axis=-1), np.maximum(near, far).min(axis=-1)
    t_wall, axis = walls.min(axis=-1), walls.argmin(axis=-1)
    on_table = (enter < leave) & (enter > 0)
    t = np.where(on_table, enter, t_wall)
    point = origin + ray * t_wall[..., None]
    label = np.full(t.shape, WALL)
    label[(axis == 2) & (point[..., 2] < 1)] = FLOOR
    label[(axis == 2) & (point[..., 2] > 1)] = CEILING
    far_wall = (axis == 1) & (point[..., 1] > 0)
    label[far_wall & (point[..., 0] > 4.0) & (point[..., 0] < 5.0) & (point[..., 2] < 2.0)] = DOOR
    high = (point[..., 2] > 1.2) & (point[..., 2] < 2.2)
    label[far_wall & (point[..., 0] > 1.8) & (point[..., 0] < 2.8) & high] = PICTURE
    label[on_table] = TABLE_ID
    return t, label


def painted(label: np.ndarray, point: np.ndarray) -> np.ndarray:
    """A colour per class, with a pattern that depends on the place alone."""
    base = np.array([COLORS.get(one, (0, 0, 0)) for one in range(41)], float)[label]
    pattern = 15 * np.sin(point @ np.array([[3.0, 1, 2], [1, 4, 1], [2, 1, 3.5]]))
    return np.clip(base + pattern, 0, 255).round().astype(np.uint8)


def exact_image(
    view: View, size: tuple[int, int] = (WIDTH, HEIGHT), angles=HALF_ANGLE
) -> dict[str, np.ndarray]:
    """Colour, depth (mm along the optical axis) and NYU40 ids of a perspective view."""
    right, up, forward = view.basis()
    x = (2 * (np.arange(size[0]) + 0.5) / size[0] - 1) * np.tan(angles[0])
    y = (2 * (np.arange(size[1]) + 0.5) / size[1] - 1) * np.tan(angles[1])
    ray = forward + x[None, :, None] * right - y[:, None, None] * up
    return _pictures(np.array(view.eye), ray)


def panorama(size: tuple[int, int] = PANORAMA) -> dict[str, np.ndarray]:
    """The same all around: +y in the middle, turning right from left to right; depth along the ray."""
    turn = 2 * np.pi * ((np.arange(size[0]) + 0.5) / size[0] - 0.5)
    rise = np.pi * (0.5 - (np.arange(size[1]) + 0.5) / size[1])
    ahead, to_the_right = np.array([0.0, 1, 0]), np.cross([0.0, 1, 0], [0.0, 0, 1])
    level = np.cos(turn)[None, :, None] * ahead + np.sin(turn)[None, :, None] * to_the_right
    ray = np.cos(rise)[:, None, None] * level + np.sin(rise)[:, None, None] * np.array([0.0, 0, 1])
    return _pictures(CENTRE, ray)


def _pictures(origin: np.ndarray, ray: np.ndarray) -> dict[str, np.ndarray]:
    t, label = hits(origin, ray)
    return {
        "rgb_rawlight.png": painted(label, origin + ray * t[..., None]),
        "depth.png": np.rint(t * 1000).astype(np.uint16),
        "semantic.png": label.astype(np.uint8),
    }


def png(values: np.ndarray) -> bytes:
    """A PNG file; colour with an alpha channel, as the dataset has it."""
    if values.ndim == 3:
        values = np.concatenate([values, np.full((*values.shape[:2], 1), 255, np.uint8)], axis=2)
    target = io.BytesIO()
    Image.fromarray(values).save(target, format="PNG")
    return target.getvalue()


def pose_line(view: View, angles=HALF_ANGLE) -> bytes:
    """camera_pose.txt: eye in millimetres, direction, up, two half angles, 1."""
    numbers = (*(1000 * one for one in view.eye), *view.forward, *view.up, *angles, 1)
    return " ".join(f"{one:.9g}" for one in numbers).encode() + b"\n"


def room_files(
    scene: str = "scene_00007", room: str = "123", views=VIEWS, size: tuple[int, int] = (WIDTH, HEIGHT)
) -> dict[str, bytes]:
    """All files of the room by their path in the archives."""
    base = f"Structured3D/{scene}/2D_rendering/{room}"
    files = {f"{base}/panorama/camera_xyz.txt": " ".join(f"{1000 * one:g}" for one in CENTRE).encode()}
    for name, values in panorama().items():
        files[f"{base}/panorama/full/{name}"] = png(values)
    for number, view in enumerate(views):
        folder = f"{base}/perspective/full/{number}"
        files[f"{folder}/camera_pose.txt"] = pose_line(view)
        files[f"{folder}/layout.json"] = b"{}"
        for name, values in exact_image(view, size).items():
            files[f"{folder}/{name}"] = png(values)
    return files


def zip_bytes(files: Mapping[str, bytes], deflate: bool = True) -> bytes:
    """A zip archive, written field by field; folders have entries of their own, as in the dataset."""
    out, directory = bytearray(), bytearray()
    folders = sorted({name.rsplit("/", 1)[0] + "/" for name in files})
    for name, data in [*((folder, b"") for folder in folders), *files.items()]:
        method = 8 if deflate and data else 0
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        packed = packer.compress(data) + packer.flush() if method else data
        sizes = (zlib.crc32(data), len(packed), len(data), len(name.encode()))
        offset = len(out)
        out += struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, method, 0, 0x21, *sizes, 0) + name.encode()
        out += packed
        fixed = struct.pack(
            "<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, method, 0, 0x21, *sizes, 0, 0, 0, 0, 0, offset
        )
        directory += fixed + name.encode()
    count = len(files) + len(folders)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(directory), len(out), 0)
    return bytes(out + directory + end)


def write_zips(root: Path, files: Mapping[str, bytes]) -> tuple[Path, Path]:
    """Panoramas and perspective views in an archive each, as they are published."""
    root.mkdir(parents=True, exist_ok=True)
    paths = root / "Structured3D_panorama_00.zip", root / "Structured3D_perspective_full_00.zip"
    for path, word in zip(paths, ("/panorama/", "/perspective/"), strict=True):
        path.write_bytes(zip_bytes({name: data for name, data in files.items() if word in name}))
    return paths


def distance_to_room(points: np.ndarray) -> np.ndarray:
    """From points to the nearest surface of walls or table."""
    walls = np.minimum(np.abs(points - LOWER), np.abs(points - UPPER)).min(axis=1)
    centre, half = (TABLE[0] + TABLE[1]) / 2, (TABLE[1] - TABLE[0]) / 2
    beyond = np.abs(points - centre) - half
    outside = np.linalg.norm(np.maximum(beyond, 0), axis=1)
    return np.minimum(walls, np.abs(outside + np.minimum(beyond.max(axis=1), 0)))
