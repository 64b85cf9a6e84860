"""Recordings broken in twenty ways: one file or number of a sound recording of the box room is damaged."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.scenes import box_room


@dataclass(frozen=True)
class Parts:
    """Where the parts of a recording are, as patterns of file names."""

    color: str
    depth: str
    poses: str
    camera: str | None
    """None: the camera is given, no file of the recording holds it."""


PARTS = {
    "7scenes": Parts("*.color.png", "*.depth.png", "*.pose.txt", "camera-intrinsics.txt"),
    "bundlefusion": Parts("*.color.jpg", "*.depth.png", "*.pose.txt", "info.txt"),
    "tum": Parts("rgb/*.png", "depth/*.png", "groundtruth.txt", None),
    "redwood": Parts("color/*.jpg", "depth/*.png", "trajectory.log", "intrinsic.json"),
    "replica": Parts("results/frame*.jpg", "results/depth*.png", "traj.txt", "cam_params.json"),
    "scannet": Parts("color/*.jpg", "depth/*.png", "pose/*.txt", "intrinsic/intrinsic_depth.txt"),
    "nerfstudio": Parts("images/*.png", "depths/*.png", "transforms.json", "transforms.json"),
}
Damage = Callable[[Path, Parts], None]
_DECIMAL = re.compile(r"-?\d+\.\d+(e[-+]?\d+)?|-?\binf\b")


def _each(change: Callable[[Path], None], part: str) -> Damage:
    """The same change to all files of a part."""

    def damage(root: Path, parts: Parts) -> None:
        for path in sorted(root.glob(getattr(parts, part) or "nothing")):
            change(path)

    return damage


def _cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _save(make: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with Image.open(path) as image:
            values = np.asarray(image)
        Image.fromarray(make(values)).save(path)

    return change


def claimed_png(width: int, height: int, bits: int = 16) -> bytes:
    """A PNG file that claims a size and holds one row of zeros."""
    data = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">2I5B", width, height, bits, 0, 0, 0, 0)
    for kind, body in (
        (b"IHDR", header),
        (b"IDAT", zlib.compress(bytes(1 + width * bits // 8))),
        (b"IEND", b""),
    ):
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data


def _numbers(value: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        word = {"nan": "NaN", "-inf": "-Infinity"}.get(value, value) if path.suffix == ".json" else value
        path.write_text(_DECIMAL.sub(word, path.read_text()))

    return change


KINDS: dict[str, Damage] = {
    "colour cut": _each(_cut, "color"),
    "colour empty": _each(lambda path: path.write_bytes(b"") and None, "color"),
    "colour is text": _each(lambda path: path.write_text("<html>404</html>") and None, "color"),
    "colour claims a gigapixel": _each(
        lambda path: path.write_bytes(claimed_png(32000, 32000)) and None, "color"
    ),
    "colour missing": _each(Path.unlink, "color"),
    "depth cut": _each(_cut, "depth"),
    "depth empty": _each(lambda path: path.write_bytes(b"") and None, "depth"),
    "depth is random bytes": _each(
        lambda path: path.write_bytes(np.random.default_rng(0).bytes(900)) and None, "depth"
    ),
    "depth claims a gigapixel": _each(
        lambda path: path.write_bytes(claimed_png(32000, 32000)) and None, "depth"
    ),
    "depth is a colour image": _each(_save(lambda values: np.zeros((*values.shape, 3), np.uint8)), "depth"),
    "depth is zero everywhere": _each(_save(np.zeros_like), "depth"),
    "depth is invalid everywhere": _each(_save(lambda values: np.full_like(values, 65535)), "depth"),
    "depth missing": _each(Path.unlink, "depth"),
    "poses nan": _each(_numbers("nan"), "poses"),
    "poses infinite": _each(_numbers("-inf"), "poses"),
    "poses zero": _each(_numbers("0.0"), "poses"),
    "poses huge": _each(_numbers("7.0e300"), "poses"),
    "poses cut": _each(_cut, "poses"),
    "poses are words": _each(lambda path: path.write_text("no such thing\n" * 4) and None, "poses"),
    "camera without numbers": _each(_numbers("nan"), "camera"),
    "camera empty": _each(lambda path: path.write_bytes(b"") and None, "camera"),
}


def write_all(root: Path, layout: str, kinds: dict[str, Damage] = KINDS) -> list[str]:
    """One sound recording and one of each kind of damage. Returns the names of the damaged ones."""
    taken = box_room.shots(2)
    box_room.WRITERS[layout](root / "sound", taken)
    names = []
    for kind, damage in kinds.items():
        if "camera" in kind and PARTS[layout].camera is None:
            continue
        name = kind.replace(" ", "_")
        box_room.WRITERS[layout](root / name, taken)
        damage(root / name, PARTS[layout])
        names.append(name)
    return names
