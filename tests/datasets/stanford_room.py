"""Rooms as S3DIS and 2D-3D-S store them: text written byte by byte, images rendered in closed form.

The room is the box with a block in it of `box_room`; the block is a table. Its mirror image is another room.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.scenes.box_room import BLOCK, LOWER, UPPER, look

WIDTH, HEIGHT = 96, 80
FOCAL = (68.0, 66.0)
CENTRE = (47.0, 40.5)
LENS = (0.09, -0.12, 0.0013, -0.0009, 0.03)
"""k1 k2 p1 p2 k3."""
FROM_5B = np.array([[0, 1.0, 0, -4.09703582], [-1.0, 0, 0, 6.22617759], [0, 0, 1.0, 0], [0, 0, 0, 1.0]])
CLASSES = (
    "ceiling", "floor", "wall", "beam", "column", "window", "door",
    "table", "chair", "sofa", "bookcase", "board", "clutter",
)  # fmt: skip
EYES = [
    ((1.5, -1.1, 1.6), (-0.3, 0.2, 0.6)),
    ((1.6, -0.4, 1.5), (-0.5, 0.1, 0.7)),
    ((1.4, 0.6, 1.4), (-0.5, -0.2, 0.6)),
    ((0.6, 1.2, 1.7), (0.0, -0.6, 0.5)),
    ((-0.6, 1.2, 1.6), (0.3, -0.6, 0.6)),
    ((-1.5, 0.9, 1.5), (0.3, -0.3, 0.7)),
]


@dataclass(frozen=True)
class Thing:
    """One annotated file."""

    file: str
    rows: np.ndarray
    """x y z r g b."""

    @property
    def label(self) -> int:
        """Class that the name of the file means."""
        prefix = self.file.split("_")[0]
        return CLASSES.index(prefix) if prefix in CLASSES else 12


def color_at(points: np.ndarray) -> np.ndarray:
    """Colour of a place."""
    return (128 + 90 * np.sin(points @ np.array([[3.0, 1, 2], [1, 4, 1], [2, 1, 3.5]]))).round()


def _patch(lower: np.ndarray, upper: np.ndarray, axis: int, at: float, spacing: float, rng) -> np.ndarray:
    """Jittered points on a rectangle at right angles to an axis, in whole millimetres."""
    others = [one for one in range(3) if one != axis]
    sides = [np.arange(lower[one], upper[one], spacing) for one in others]
    first, second = np.meshgrid(*sides, indexing="ij")
    points = np.empty((first.size, 3))
    points[:, others[0]], points[:, others[1]], points[:, axis] = first.ravel(), second.ravel(), at
    points[:, others] += rng.uniform(0, spacing, (len(points), 2))
    points = np.clip(points, lower, upper)
    points[:, axis] = at
    return points.round(3)


def room_things(spacing: float = 0.07, shift: tuple[float, float, float] = (0, 0, 0)) -> list[Thing]:
    """Walls, floor, ceiling and the table, in the order of sorted file names."""
    rng = np.random.default_rng(4)
    sides = {
        "ceiling_1": [(LOWER, UPPER, 2, UPPER[2])],
        "floor_1": [(LOWER, UPPER, 2, LOWER[2])],
        "table_1": [
            (*BLOCK, 2, BLOCK[1][2]),
            *((*BLOCK, axis, BLOCK[end][axis]) for axis in (0, 1) for end in (0, 1)),
        ],
        "wall_1": [(LOWER, UPPER, 0, LOWER[0])],
        "wall_2": [(LOWER, UPPER, 0, UPPER[0])],
        "wall_3": [(LOWER, UPPER, 1, LOWER[1]), (LOWER, UPPER, 1, UPPER[1])],
    }
    things = []
    for name, patches in sides.items():
        points = np.concatenate([_patch(*one, spacing, rng) for one in patches])
        rows = np.concatenate([(points + shift).round(3), color_at(points)], axis=1)
        things.append(Thing(f"{name}.txt", rows))
    return things


def text_of(rows: np.ndarray, long: bool = True) -> bytes:
    """`%f` as in Stanford3dDataset_v1.2, or millimetres and whole colours as in the aligned archive."""
    form = "%f %f %f %f %f %f\n" if long else "%.3f %.3f %.3f %d %d %d\n"
    return "".join(form % tuple(row) for row in rows).encode()


def write_room(area: Path, room: str, things: list[Thing], long: bool = True) -> Path:
    """Annotations and the list of all points."""
    folder = area / room / "Annotations"
    folder.mkdir(parents=True)
    for thing in things:
        (folder / thing.file).write_bytes(text_of(thing.rows, long))
    (area / room / f"{room}.txt").write_bytes(b"".join(text_of(one.rows, long) for one in things))
    return area / room


def write_angles(area: Path, angles: dict[str, int]) -> None:
    """Header lines and one line per room."""
    head = "## Global alignment angle per disjoint space\n## (the angle)\n## Disjoint Space Name  Angle\n"
    lines = "".join(f"{room} {angle}\n" for room, angle in angles.items())
    (area / f"{area.name}_alignmentAngle.txt").write_text(head + lines)


def arrays_of(things: list[Thing]) -> dict[str, np.ndarray]:
    """What a reader should find, before the room is turned."""
    sizes = [len(one.rows) for one in things]
    rows = np.concatenate([one.rows for one in things])
    return {
        "coord": rows[:, :3],
        "color": rows[:, 3:].astype(np.uint8),
        "segment": np.repeat([one.label for one in things], sizes),
        "instance": np.repeat(np.arange(len(things)), sizes),
    }


def poses() -> list[np.ndarray]:
    """Camera-to-room of all images."""
    return [look(*one) for one in EYES]


def seen(pose: np.ndarray, ray: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth along the optical axis, colour and class for rays (x/z, y/z)."""
    direction = np.concatenate([ray, np.ones((*ray.shape[:-1], 1))], axis=-1) @ pose[:3, :3].T
    eye = pose[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        walls = np.maximum((LOWER - eye) / direction, (UPPER - eye) / direction).min(axis=-1)
        near, far = (BLOCK[0] - eye) / direction, (BLOCK[1] - eye) / direction
    enter, leave = np.minimum(near, far).max(axis=-1), np.maximum(near, far).min(axis=-1)
    table = (enter < leave) & (enter > 0)
    depth = np.where(table, enter, walls)
    point = eye + direction * depth[..., None]
    label = np.where(np.abs(point[..., 2] - UPPER[2]) < 1e-6, 0, np.where(point[..., 2] < 1e-6, 1, 2))
    return depth, color_at(point).astype(np.uint8), np.where(table, 7, label)


def bent(ray: np.ndarray) -> np.ndarray:
    """OpenCV's published formula, written out."""
    k1, k2, p1, p2, k3 = LENS
    x, y = ray[..., 0], ray[..., 1]
    r = x**2 + y**2
    scale = 1 + k1 * r + k2 * r**2 + k3 * r**3
    return np.stack(
        [x * scale + 2 * p1 * x * y + p2 * (r + 2 * x**2), y * scale + p1 * (r + 2 * y**2) + 2 * p2 * x * y],
        -1,
    )


def straight_rays(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Of the pixels of the undistorted image, at any size with the same edges."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    full = np.stack([(x + 0.5) * WIDTH / width - 0.5, (y + 0.5) * HEIGHT / height - 0.5], -1)
    return (full - CENTRE) / FOCAL


def lens_rays() -> np.ndarray:
    """Rays whose bent image falls on the pixel centres, by fixed-point iteration."""
    target = straight_rays()
    ray = target.copy()
    for _ in range(60):
        ray = ray + target - bent(ray)
    assert np.abs(bent(ray) - target).max() < 1e-9
    return ray


def write_views(folder: Path, room: str, taken: list[np.ndarray], to_part: np.ndarray | None = None) -> None:
    """raw/ and camera_to_room.json of one camera per room; three images per pitch."""
    raw = folder / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    camera = f"{abs(hash_of(room)):032x}"
    ray = lens_rays()
    for index, pose in enumerate(taken):
        pitch, yaw = divmod(index, 3)
        depth, color, _ = seen(pose, ray)
        units = np.rint(depth * 4000).astype(np.uint16)
        units[0, :3] = (65500, 65535, 0)
        Image.fromarray(color).save(raw / f"{camera}_i{pitch}_{yaw}.jpg", quality=97, subsampling=0)
        Image.fromarray(units).save(raw / f"{camera}_d{pitch}_{yaw}.png")
        np.savetxt(raw / f"{camera}_pose_{pitch}_{yaw}.txt", pose if to_part is None else to_part @ pose)
        numbers = (WIDTH, HEIGHT, *FOCAL, *CENTRE, *LENS)
        (raw / f"{camera}_intrinsics_{pitch}.txt").write_text(" ".join(map(str, numbers)) + "\n")
    table = folder / "3d" / "camera_to_room.json"
    table.parent.mkdir(exist_ok=True)
    known = json.loads(table.read_text()) if table.is_file() else {}
    number = folder.name.split("_")[1][0]
    table.write_text(json.dumps({**known, camera: f"{room}_{number}"}))


def hash_of(name: str) -> int:
    """A number for a name, the same in every run."""
    return int.from_bytes(name.encode()[:12], "big")


def write_mesh(folder: Path, to_part: np.ndarray | None = None) -> None:
    """The room as quadrilaterals with y up; corners counter-clockwise seen from inside the room."""
    lines, n_vertices = ["mtllib rgb.mtl", "g room"], 0
    for lower, upper, inwards in ((LOWER, UPPER, True), (*BLOCK, False)):
        for axis in range(3):
            for end in (0, 1):
                u, v = (axis + 1) % 3, (axis + 2) % 3
                corners = np.tile(lower, (4, 1))
                corners[[1, 2], u], corners[[2, 3], v] = upper[u], upper[v]
                corners[:, axis] = (lower, upper)[end][axis]
                if (end == 1) == inwards:  # counter-clockwise seen from +axis, unless reversed
                    corners = corners[::-1]
                if to_part is not None:
                    corners = corners @ to_part[:3, :3].T + to_part[:3, 3]
                lines += [f"v {x:.6f} {z:.6f} {-y:.6f}" for x, y, z in corners]
                lines += ["vt 0.5 0.5", "usemtl one"]
                words = " ".join(f"{n_vertices + i}/1" for i in (1, 2, 3, 4))
                lines.append(f"f {words}")
                n_vertices += 4
    path = folder / "3d" / "rgb.obj"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
