"""Files of a few bytes that promise a great many, and what it costs to refuse each.

python -m tests.campaigns.faults.lying_headers FOLDER     prints a JSON list: case, refused, seconds, grown_mb
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.campaigns.faults.bad_recordings import claimed_png
from tests.scenes import box_room

HUGE = 10**12
_SENS_COUNT = 4 + 8 + 4 + 64 * 4 + 8 + 16 + 4


@dataclass(frozen=True)
class Cost:
    """Outcome of one file."""

    case: str
    refused: bool
    """By the one clean error."""
    seconds: float
    grown_mb: float
    """Highest memory during the reading, less what the process had before."""
    said: str


def _ply(form: str, header: str, body: bytes = b"") -> bytes:
    return f"ply\nformat {form} 1.0\n{header}end_header\n".encode() + body


def _npy(shape: tuple[int, ...], form: str = "<f4") -> bytes:
    target = io.BytesIO()
    header = {"descr": form, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(target, header)  # pyright: ignore[reportArgumentType]
    return target.getvalue() + b"\0" * 36


def _npz(data: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in ("ids", "K", "camera_to_world", "size", "depth_scale"):
            archive.writestr(f"{name}.npy", data)
    return target.getvalue()


def _torch_of(numel: int, new: bool = True) -> bytes:
    """A file of torch whose header claims a larger tensor than it holds."""
    import torch

    target = io.BytesIO()
    values = {"state_dict": {"backbone.x": torch.zeros(12345)}, "coord": torch.zeros(12345)}
    torch.save(values, target, _use_new_zipfile_serialization=new)
    data = target.getvalue()
    if not new:
        return data.replace(pickle.dumps(12345, 2)[2:-1], pickle.dumps(numel, 2)[2:-1])
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(out, "w") as copy:
        for name in archive.namelist():
            part = archive.read(name)
            lie = pickle.dumps(numel, 2)[2:-1]
            copy.writestr(
                name, part.replace(pickle.dumps(12345, 2)[2:-1], lie) if name.endswith(".pkl") else part
            )
    return out.getvalue()


def _sens(at: int, form: str, *values: int) -> bytes:
    data = bytearray(box_room.sens_bytes(box_room.shots(1)))
    struct.pack_into(form, data, at, *values)
    return bytes(data)


def _sparse(path: Path, size: int = 4 << 30) -> None:
    with path.open("wb") as file:
        file.write(b'{"frames": "')
        file.truncate(size)


def _cloud(path: Path) -> Any:
    from ponderv2.scenes.point_cloud_files import read_cloud

    return read_cloud(path)


def _open_sens(path: Path) -> Any:
    from ponderv2.io.sens import open_sens

    return open_sens(path).depth(0)


def _cameras(path: Path) -> Any:
    from ponderv2.scenes.array_folders import _read_frames

    return _read_frames(path.parent)


def _checkpoint(path: Path) -> Any:
    from ponderv2.tasks.checkpoints import load_model

    return load_model(path)


def _pickled(path: Path) -> Any:
    from ponderv2.io.safe_pickle import read_pickled

    return read_pickled(path)


def _depth(path: Path) -> Any:
    from ponderv2.io.images import read_integers

    return read_integers(path)


def _color(path: Path) -> Any:
    from ponderv2.io.images import read_color

    return read_color(path)


def _transforms(path: Path) -> Any:
    from ponderv2.datasets.rgbd.layouts import nerfstudio

    return nerfstudio.read(path.parent)


def _path_of_cameras(path: Path) -> Any:
    from ponderv2.reconstruction.camera_files import read_cameras

    return read_cameras(path)


def _preset(path: Path) -> Any:
    from ponder_cli.layers import read_yaml

    return read_yaml(path)


def _store(path: Path) -> Any:

    from ponderv2.data.scene_folder import open_folder

    return open_folder(path.parent)


def _zip(path: Path) -> Any:
    from ponderv2.io.archives import archive_members

    return [piece.read() for _, piece in archive_members(path)]


def _labels(path: Path) -> Any:
    from ponderv2.datasets.scannet.frames import LabelZip

    return LabelZip.open(path).read(0)


_XYZ = "property float x\nproperty float y\nproperty float z\n"
_PCD = "VERSION .7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\n"
_PCD += f"WIDTH {HUGE}\nHEIGHT 1\nPOINTS {HUGE}\nDATA "
_LITTLE = "binary_little_endian"


def _lying_zip(name: str) -> bytes:
    """A member of a few bytes that the directory calls 60 MiB."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(name, b"abc")
    data = bytearray(target.getvalue())
    at = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, 60 << 20)
    return bytes(data)


CASES: dict[str, tuple[str, bytes | Callable[[Path], None], Callable[[Path], Any]]] = {
    "sens: 2^63 frames": ("a.sens", _sens(_SENS_COUNT, "<Q", 2**63), _open_sens),
    "sens: 2^60 bytes an image": ("b.sens", _sens(_SENS_COUNT + 8 + 64 + 16, "<Q", 2**60), _open_sens),
    "sens: depth of 32768 x 32768": ("c.sens", _sens(_SENS_COUNT - 12, "<2I", 32768, 32768), _open_sens),
    "ply: 10^9 binary vertices": (
        "a.ply", _ply(_LITTLE, f"element vertex {10**9}\n{_XYZ}", bytes(120)), _cloud,
    ),
    "ply: 10^9 ascii vertices": (
        "b.ply", _ply("ascii", f"element vertex {10**9}\n{_XYZ}", b"0 0 0\n" * 9), _cloud,
    ),
    "ply: a face of 2^31 corners": (
        "c.ply",
        _ply(
            "binary_little_endian",
            f"element vertex 3\n{_XYZ}element face 2\nproperty list uint int vertex_indices\n",
            bytes(36) + struct.pack("<I", 2**31) + bytes(40),
        ),
        _cloud,
    ),
    "pcd: 10^12 points": ("a.pcd", (_PCD + "binary\n").encode() + bytes(120), _cloud),
    "pcd: 10^12 compressed points": (
        "b.pcd",
        (_PCD + "binary_compressed\n").encode() + struct.pack("<II", 100, 2**32 - 1) + bytes(120),
        _cloud,
    ),
    "npy: 10^12 rows": ("a.npy", _npy((HUGE, 3)), _cloud),
    "npz: 10^12 poses": ("npz/cameras.npz", _npz(_npy((HUGE, 4, 4))), _cameras),
    "png: depth of 32000 x 32000": ("a.png", claimed_png(32000, 32000), _depth),
    "png: depth of 2^31 x 2^31": ("b.png", claimed_png(2**31 - 1, 1)[:8] + claimed_png(8, 8)[8:16]
        + struct.pack(">2I", 2**31 - 1, 2**31 - 1) + claimed_png(8, 8)[24:], _depth),
    "png: colour of 30000 x 5000": ("c.png", claimed_png(30000, 5000, 8), _color),
    "json: 4 GB of transforms.json": ("json/transforms.json", _sparse, _transforms),
    "json: 4 GB of camera path": ("path.json", _sparse, _path_of_cameras),
    "yaml: 4 GB of preset": ("a.yaml", _sparse, _preset),
    "yaml: 4 GB of dataset.yaml": ("store/dataset.yaml", _sparse, _store),
    "checkpoint: 2^40 numbers": ("a.pth", _torch_of(2**40), _checkpoint),
    "checkpoint: 2^40 numbers, older stream": ("b.pth", _torch_of(2**40, new=False), _checkpoint),
    "scene: 2^40 numbers": ("c.pth", _torch_of(2**40), _pickled),
    "safetensors: a header of 2^62 bytes": ("a.safetensors", struct.pack("<Q", 2**62) + b"{}", _checkpoint),
    "zip: an image of 60 MiB in 3 bytes": (
        "a.zip", _lying_zip("S/scene_00000/2D_rendering/1/perspective/full/0/depth.png"), _zip,
    ),
    "zip: 2D labels of 60 MiB in 3 bytes": ("b.zip", _lying_zip("label-filt/0.png"), _labels),
}  # fmt: skip


def cost(case: str, folder: Path) -> Cost:
    """Write the file, read it, measure."""
    from ponderv2.errors import PonderError

    name, contents, read = CASES[case]
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(contents, bytes):
        path.write_bytes(contents)
    else:
        contents(path)
    Path("/proc/self/clear_refs").write_text("5")  # the highest memory counts from here
    before, start = _highest(), time.perf_counter()
    try:
        read(path)
        refused, said = False, "read"
    except PonderError as error:
        refused, said = True, error.message
    seconds = time.perf_counter() - start
    path.unlink()
    return Cost(case, refused, round(seconds, 4), round(_highest() - before, 2), said)


def _highest() -> float:
    """MiB: the highest resident memory since it was last reset."""
    (line,) = [
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    ]
    return int(line.split()[1]) / 1024


def main() -> None:
    """Each case twice: the first time imports libraries."""
    folder = Path(sys.argv[1])
    for case in CASES:
        cost(case, folder)
    json.dump([asdict(cost(case, folder)) for case in CASES], sys.stdout)


if __name__ == "__main__":
    main()
