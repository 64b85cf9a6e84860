"""Files made to do harm: each would touch a flag, leave its folder or fill memory if it were trusted."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.campaigns.faults.bad_recordings import claimed_png
from tests.scenes import box_room

Words = Sequence[object]
STRUCTURED = "Structured3D/scene_00007/2D_rendering/123/perspective/full/0"
FOREIGN = "scene_00007/2D_rendering/../../../../escaped"


class Command:
    """A pickle that runs a command of the shell when it is read."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def pickles(command: str) -> dict[str, bytes]:
    """The same object in every container that is known."""
    import torch

    values = {"state_dict": Command(command), "coord": Command(command)}
    found = {f"pickle {protocol}": pickle.dumps(values, protocol) for protocol in (0, 2, 4, 5)}
    for name, new in (("torch", True), ("older torch", False)):
        target = io.BytesIO()
        torch.save(values, target, _use_new_zipfile_serialization=new)
        found[name] = target.getvalue()
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for member, data in (
            ("sys_info", found["pickle 2"]),
            ("../escaped", b"x"),
            ("pickle", found["pickle 2"]),
        ):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return {**found, "tar": tar.getvalue()}


def object_array(command: str) -> bytes:
    """A .npy file of Python objects."""
    target = io.BytesIO()
    np.save(target, np.array([[Command(command)] * 3] * 2, object), allow_pickle=True)
    return target.getvalue()


def commands_for(checkpoint: Path, data: Path, out: Path) -> dict[str, Words]:
    """Every command that is given a checkpoint."""
    return {
        "eval": ("eval", checkpoint, "--data", data),
        "render": ("render", checkpoint, "--data", data, "--scene", "room0", "--out", out / "frames"),
        "reconstruct": (
            "reconstruct",
            checkpoint,
            "--data",
            data,
            "--scene",
            "room0",
            "--out",
            out / "m.ply",
        ),
        "features": ("features", checkpoint, "--data", data, "--scene", "room0", "--out", out / "f.npy"),
        "finetune": ("finetune", "--from", checkpoint, "--data", data, "--out", out / "runs"),
        "inspect": ("inspect", checkpoint),
        "export": ("export", checkpoint, "--out", out / "e.pth"),
    }


YAMLS = {
    "python call": "training: !!python/object/apply:os.system ['{command}']\n",
    "python name": "training: !!python/name:os.system\n",
    "python object": "training: !!python/object/new:subprocess.Popen [['sh', '-c', '{command}']]\n",
    "own tag": "training: !run {command}\n",
    "alias bomb": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)),
    "deep": "a: " + "[" * 5000 + "]" * 5000 + "\n",
    "merge bomb": "a: &a {b: 1}\nc: {<<: [*a, *a, *a]}\n",
}


def pickled_store(root: Path, data: bytes) -> Path:
    """A folder as PonderV2 writes it."""
    (root / "train").mkdir(parents=True)
    (root / "train/scene0000_00.pth").write_bytes(data)
    return root


def array_store(root: Path, name: str, data: bytes) -> Path:
    """A prepared scene with one file of somebody else."""
    place = root / "train/room0"
    (place / "frames").mkdir(parents=True)
    for one in ("coord", "color", "normal"):
        np.save(place / f"{one}.npy", np.ones((5, 3), np.float32))
    (root / "dataset.yaml").write_text("name: rooms\nsplits: [train]\n")
    (place / name).write_bytes(data)
    return root


def npz_of(data: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    """cameras.npz with the same member five times."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name in ("ids", "K", "camera_to_world", "size", "depth_scale"):
            archive.writestr(f"{name}.npy", data)
    return target.getvalue()


def zeros_npy(megabytes: int) -> bytes:
    """An honest header and that many zeros."""
    target = io.BytesIO()
    np.save(target, np.zeros((megabytes << 20) // 4, np.float32))
    return target.getvalue()


def zip_with(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    """An archive; `links` are symbolic ones with their targets."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        for name, to in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o120777 << 16
            archive.writestr(info, to)
    return target.getvalue()


def png_bomb(width: int, height: int) -> bytes:
    """A whole image of zeros: a thousandth of its pixels."""
    data = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">2I5B", width, height, 16, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    row = bytes(1 + 2 * width)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    for kind, part in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b"")):
        data += struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part))
    return data


def jpeg_claiming(width: int, height: int) -> bytes:
    """A small JPEG whose header names another size."""
    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(target, format="JPEG")
    data = bytearray(target.getvalue())
    at = data.index(b"\xff\xc0")
    struct.pack_into(">2H", data, at + 5, height, width)
    return bytes(data)


def sens_bomb() -> bytes:
    """One frame whose depth of zeros unpacks to 69 MiB, 1000 : 1."""
    shot = box_room.shots(1)[0]
    width = height = 6000
    packed = zlib.compress(bytes(2 * width * height), 9)
    wide = np.eye(4, dtype="<f4").tobytes()
    data = struct.pack("<IQ", 3, 4) + b"room" + wide * 4
    data += struct.pack("<ii4IfQ", 2, 1, 8, 8, width, height, 1000.0, 1)
    data += shot.pose.astype("<f4").tobytes() + struct.pack("<4Q", 0, 0, 0, len(packed))
    return data + packed


def bombs(folder: Path) -> dict[str, Callable[[], Any]]:
    """Files that unpack to a thousand times their size, each with its reader."""
    from ponderv2.data.scene_folder import open_folder
    from ponderv2.datasets.ponderv2.images import PickledImages
    from ponderv2.datasets.scannet.frames import LabelZip
    from ponderv2.io.archives import archive_members
    from ponderv2.io.images import read_color, read_integers
    from ponderv2.io.sens import open_sens
    from ponderv2.tasks.checkpoints import load_model

    def file(name: str, data: bytes) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    zeros = bytes(96 << 20)
    deflated_torch = zip_with({"a/data.pkl": pickle.dumps({"state_dict": 1}), "a/data/0": zeros})
    store = array_store(folder / "store", "frames/cameras.npz", npz_of(zeros_npy(96), zipfile.ZIP_DEFLATED))
    structured = file("s.zip", zip_with({f"{STRUCTURED}/depth.png": zeros}))
    labels = file("l.zip", zip_with({"label-filt/0.png": zeros}))
    labels_png = file("m.zip", zip_with({"label-filt/0.png": png_bomb(16000, 4000)}))
    png, sens = file("a.png", png_bomb(16000, 4000)), file("a.sens", sens_bomb())
    return {
        "checkpoint": lambda: load_model(file("a.pth", deflated_torch)),
        "pickled scene": lambda: PickledImages().color(file("b.pth", deflated_torch), (8, 6)),
        "cameras.npz": lambda: open_folder(store).read("room0"),
        "structured3d": lambda: [piece.read() for _, piece in archive_members(structured)],
        "scannet labels": lambda: LabelZip.open(labels).read(0),
        "scannet label image": lambda: LabelZip.open(labels_png).read(0),
        "png": lambda: read_integers(png),
        "png header": lambda: read_integers(file("b.png", claimed_png(30000, 5000))),
        "jpeg header": lambda: read_color(file("c.jpg", jpeg_claiming(60000, 60000))),
        "jpeg header, smaller": lambda: read_color(file("d.jpg", jpeg_claiming(9000, 9000))),
        "sens": lambda: open_sens(sens).depth(0),
    }


def escapes(folder: Path) -> dict[str, Callable[[], Any]]:
    """Archives and lists whose members lie somewhere else."""
    from ponderv2.datasets.structured3d.config import Structured3dConfig
    from ponderv2.datasets.structured3d.reader import find

    def prepared(name: str, members: dict[str, bytes], links: dict[str, str] | None = None) -> Any:
        path = folder / name
        path.write_bytes(zip_with(members, links))
        (job,) = find(Structured3dConfig(path=path, min_coverage=0.0)).scenes
        scene = job.read()
        frames = list(scene.frames)
        return frames, scene.finish()

    room = "Structured3D/scene_00007/2D_rendering/123/perspective/full"
    links = {f"{room}/0/{name}": "/etc/passwd" for name in ("depth.png", "semantic.png", "rgb_rawlight.png")}
    return {
        "parent folders": lambda: prepared("a.zip", {f"../../{FOREIGN}/perspective/full/0/depth.png": b"x"}),
        "absolute": lambda: prepared("b.zip", {f"/{room}/0/depth.png": b"x"}),
        "view called ..": lambda: prepared("c.zip", {f"{room}/../depth.png": b"x"}),
        "links": lambda: prepared(
            "d.zip", {f"{room}/0/camera_pose.txt": b"0 0 0 0 1 0 0 0 1 .7 .5 1"}, links
        ),
    }
