"""A box-shaped room with a block in it, rendered by solving for the hit: truth for tests."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

LOWER, UPPER = np.array([-2.0, -1.5, 0.0]), np.array([2.0, 1.5, 2.4])
BLOCK = np.array([-0.5, -0.4, 0.0]), np.array([0.4, 0.5, 0.8])
WIDTH, HEIGHT = 80, 60
K = np.array([[70.0, 0, 38.5], [0, 62.0, 30.5], [0, 0, 1]])
"""Focal lengths differ, so that code which uses one for both is found out."""


@dataclass(frozen=True)
class Shot:
    """One exact image."""

    pose: np.ndarray
    color: np.ndarray
    depth: np.ndarray
    """Metres."""


def look(eye: tuple[float, float, float], target: tuple[float, float, float]) -> np.ndarray:
    """Camera-to-world, OpenCV axes, z up."""
    forward = np.subtract(target, eye)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, (0, 0, 1.0))
    right = right / np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = eye
    return pose


def poses(count: int = 8) -> list[np.ndarray]:
    """A walk around the block."""
    angles = np.linspace(0.0, 1.6, count)
    return [look((1.6 * np.cos(a), 1.2 * np.sin(a) - 0.4, 1.5 + 0.05 * a), (-0.4, 0.2, 0.7)) for a in angles]


def shoot(pose: np.ndarray, intrinsics: np.ndarray = K, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Shot:
    """Depth along the optical axis and a colour that depends on the point alone."""
    column, row = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    pixel = np.stack([column, row, np.ones_like(row)], axis=-1).astype(float)
    ray = pixel @ np.linalg.inv(intrinsics).T @ pose[:3, :3].T
    eye = pose[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        walls = np.maximum((LOWER - eye) / ray, (UPPER - eye) / ray).min(axis=-1)
        near, far = (BLOCK[0] - eye) / ray, (BLOCK[1] - eye) / ray
    enter, leave = np.minimum(near, far).max(axis=-1), np.maximum(near, far).min(axis=-1)
    depth = np.where((enter < leave) & (enter > 0), enter, walls)
    point = eye + ray * depth[..., None]
    color = 128 + 90 * np.sin(point @ np.array([[3.0, 1, 2], [1, 4, 1], [2, 1, 3.5]]))
    return Shot(pose, color.round().astype(np.uint8), depth)


def shots(count: int = 8) -> list[Shot]:
    """All images of the walk."""
    return [shoot(pose) for pose in poses(count)]


def distance_to_room(points: np.ndarray) -> np.ndarray:
    """From points to the nearest surface of walls or block."""
    walls = np.minimum(np.abs(points - LOWER), np.abs(points - UPPER)).min(axis=1)
    centre, half = (BLOCK[0] + BLOCK[1]) / 2, (BLOCK[1] - BLOCK[0]) / 2
    beyond = np.abs(points - centre) - half
    outside = np.linalg.norm(np.maximum(beyond, 0), axis=1)
    return np.minimum(walls, np.abs(outside + np.minimum(beyond.max(axis=1), 0)))


def save(shot: Shot, color: Path, depth: Path, scale: float) -> None:
    """Write the images; `scale` in metres per unit."""
    for path in (color, depth):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(shot.color).save(color, quality=95)
    Image.fromarray(np.rint(shot.depth / scale).astype(np.uint16)).save(depth)


def write_7scenes(root: Path, taken: list[Shot]) -> None:
    """frame-*.color.png, depth in millimetres."""
    root.mkdir(parents=True, exist_ok=True)
    for index, shot in enumerate(taken):
        stem = root / f"frame-{index:06d}"
        save(shot, Path(f"{stem}.color.png"), Path(f"{stem}.depth.png"), 0.001)
        np.savetxt(f"{stem}.pose.txt", shot.pose)
    np.savetxt(root / "camera-intrinsics.txt", K)


def write_bundlefusion(root: Path, taken: list[Shot]) -> None:
    """The same with jpg and info.txt."""
    write_7scenes(root, taken)
    for path in root.glob("*.color.png"):
        Image.open(path).save(path.with_suffix(".jpg"), quality=95)
        path.unlink()
    matrix = np.eye(4)
    matrix[:3, :3] = K
    words = " ".join(map(str, matrix.ravel()))
    lines = [f"m_{kind}Width = {WIDTH}\nm_{kind}Height = {HEIGHT}" for kind in ("color", "depth")]
    lines += [f"m_calibration{kind}Intrinsic = {words}" for kind in ("Color", "Depth")]
    (root / "info.txt").write_text("\n".join([*lines, "m_depthShift = 1000"]))


def write_tum(root: Path, taken: list[Shot]) -> None:
    """Lists of time stamps that differ a little; depth 5000 per metre. The camera has to be given."""
    from scipy.spatial.transform import Rotation

    lists: dict[str, list[str]] = {
        "rgb": ["# comment"],
        "depth": [],
        "groundtruth": ["# ts tx ty tz qx qy qz qw"],
    }
    for index, shot in enumerate(taken):
        time = 1305031102.0 + index / 30
        save(shot, root / f"rgb/{time:.6f}.png", root / f"depth/{time + 0.004:.6f}.png", 1 / 5000)
        lists["rgb"].append(f"{time:.6f} rgb/{time:.6f}.png")
        lists["depth"].append(f"{time + 0.004:.6f} depth/{time + 0.004:.6f}.png")
        numbers = (*shot.pose[:3, 3], *Rotation.from_matrix(shot.pose[:3, :3]).as_quat())
        lists["groundtruth"].append(f"{time + 0.004:.6f} " + " ".join(f"{one:.9f}" for one in numbers))
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines))


def write_redwood(root: Path, taken: list[Shot]) -> None:
    """trajectory.log and Open3D's camera file (column-major)."""
    lines = []
    for index, shot in enumerate(taken):
        save(shot, root / f"color/{index:05d}.jpg", root / f"depth/{index:05d}.png", 0.001)
        rows = "\n".join(" ".join(map(repr, map(float, row))) for row in shot.pose)
        lines.append(f"{index} {index} {index + 1}\n{rows}")
    (root / "trajectory.log").write_text("\n".join(lines) + "\n")
    camera = {"width": WIDTH, "height": HEIGHT, "intrinsic_matrix": K.T.ravel().tolist()}
    (root / "intrinsic.json").write_text(json.dumps(camera))


def write_sun3d(root: Path, taken: list[Shot]) -> None:
    """Names with number and microseconds; three rows of numbers a pose."""
    for index, shot in enumerate(taken):
        time = index * 33367
        color, depth = (
            root / f"image/{index + 1:07d}-{time:012d}.jpg",
            root / f"depth/{index + 1:07d}-{time + 900:012d}.png",
        )
        save(shot, color, depth, 0.001)
    (root / "extrinsics").mkdir()
    rows = [" ".join(map(str, row)) for shot in taken for row in shot.pose[:3]]
    (root / "extrinsics/20140804232440.txt").write_text("\n".join(rows) + "\n")
    np.savetxt(root / "intrinsics.txt", K)


def write_replica(root: Path, taken: list[Shot]) -> None:
    """results/ and traj.txt, 6553.5 per metre."""
    for index, shot in enumerate(taken):
        save(shot, root / f"results/frame{index:06d}.jpg", root / f"results/depth{index:06d}.png", 1 / 6553.5)
    (root / "traj.txt").write_text("\n".join(" ".join(map(str, shot.pose.ravel())) for shot in taken))
    camera = {
        "w": WIDTH,
        "h": HEIGHT,
        "fx": K[0, 0],
        "fy": K[1, 1],
        "cx": K[0, 2],
        "cy": K[1, 2],
        "scale": 6553.5,
    }
    (root / "cam_params.json").write_text(json.dumps({"camera": camera}))


def write_scannet(root: Path, taken: list[Shot]) -> None:
    """color/, depth/, pose/, intrinsic/ with unpadded numbers; colour of twice the size."""
    double = np.array([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1]]) @ K
    (root / "intrinsic").mkdir(parents=True)
    (root / "pose").mkdir()
    for index, shot in enumerate(taken):
        save(shot, root / f"color/{index}.jpg", root / f"depth/{index}.png", 0.001)
        large = shoot(shot.pose, double, (2 * WIDTH, 2 * HEIGHT))
        Image.fromarray(large.color).save(root / f"color/{index}.jpg", quality=95)
        np.savetxt(root / f"pose/{index}.txt", shot.pose, fmt="%f")
    for name, matrix in (("color", double), ("depth", K)):
        wide = np.eye(4)
        wide[:3, :3] = matrix
        np.savetxt(root / f"intrinsic/intrinsic_{name}.txt", wide, fmt="%f")
        np.savetxt(root / f"intrinsic/extrinsic_{name}.txt", np.eye(4), fmt="%f")


def write_nerfstudio(root: Path, taken: list[Shot]) -> None:
    """OpenGL poses in a turned world, pixel centres at halves, the camera given per frame."""
    applied = np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]])
    frames = []
    for index, shot in enumerate(taken):
        save(shot, root / f"images/{index:03d}.png", root / f"depths/{index:03d}.png", 0.001)
        matrix = applied @ shot.pose @ np.diag([1.0, -1, -1, 1])
        one = {"file_path": f"images/{index:03d}.png", "depth_file_path": f"depths/{index:03d}.png"}
        one |= {"fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2] + 0.5, "cy": K[1, 2] + 0.5}
        frames.append(one | {"transform_matrix": matrix.tolist()})
    values = {"w": WIDTH, "h": HEIGHT, "applied_transform": applied[:3].tolist(), "frames": frames}
    (root / "transforms.json").write_text(json.dumps(values))


def write_sens(root: Path, taken: list[Shot], version: int = 4, color: int = 2, depth: int = 1) -> Path:
    """One .sens file; `color` and `depth` are the numbers of the compressions."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / "room.sens"
    path.write_bytes(sens_bytes(taken, version, color, depth))
    return path


def sens_bytes(taken: list[Shot], version: int = 4, color: int = 2, depth: int = 1) -> bytes:
    """The bytes of a .sens file."""
    import io

    wide = np.eye(4, dtype="<f4")
    wide[:3, :3] = K
    one = np.eye(4, dtype="<f4")
    data = struct.pack("<IQ", version, 4) + b"room" + b"".join(m.tobytes() for m in (wide, one, wide, one))
    data += struct.pack("<ii4IfQ", color, depth, WIDTH, HEIGHT, WIDTH, HEIGHT, 1000.0, len(taken))
    for index, shot in enumerate(taken):
        picture = io.BytesIO()
        if color == 0:
            picture.write(shot.color.tobytes())
        else:
            Image.fromarray(shot.color).save(picture, format="PNG" if color == 1 else "JPEG", quality=95)
        raw = np.rint(shot.depth * 1000).astype("<u2").tobytes()
        packed = zlib.compress(raw) if depth == 1 else raw
        blob = picture.getvalue()
        data += shot.pose.astype("<f4").tobytes() + struct.pack("<4Q", index, index, len(blob), len(packed))
        data += blob + packed
    return data + (struct.pack("<Q", 0) if version == 4 else b"")


WRITERS = {
    "7scenes": write_7scenes,
    "bundlefusion": write_bundlefusion,
    "tum": write_tum,
    "redwood": write_redwood,
    "replica": write_replica,
    "scannet": write_scannet,
    "sun3d": write_sun3d,
    "nerfstudio": write_nerfstudio,
    "sens": lambda root, taken: write_sens(root, taken),
}
