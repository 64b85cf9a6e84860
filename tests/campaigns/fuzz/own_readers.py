"""Readers of prepared scenes, settings and weights, each reading as deeply as `ponder` does."""

from __future__ import annotations

import contextlib
import hashlib
import struct
from pathlib import Path
from typing import Any

import numpy as np

from tests.campaigns.fuzz import seeds
from tests.campaigns.fuzz.target import Read


def pickled(path: Path) -> None:
    from ponderv2.io.safe_pickle import read_pickled

    read_pickled(path)


def pickled_scene(folder: Path) -> Read:
    from ponderv2.datasets.ponderv2 import images
    from ponderv2.datasets.ponderv2.images import SceneImages
    from ponderv2.datasets.ponderv2.reader import PickledScenes
    from ponderv2.errors import SceneError

    scene, view = folder / "train/scene0000_00.pth", folder / "train/room_rgbd/0.pth"
    for path in (scene, view):
        path.parent.mkdir(parents=True, exist_ok=True)
    layout = PickledScenes(SceneImages(folder))

    def run(data: bytes) -> None:
        view.write_bytes(data)
        try:
            images._camera(view)
            images.PickledImages(20).color(view, (8, 6))
            images.PickledImages(20).depth(view, (8, 6))
            images.PickledImages(20).semantic(view, (8, 6))
        except (SceneError, images._Unusable):
            pass
        scene.write_bytes(data)
        layout.read(folder / "train/scene0000_00", "scene0000_00", True, "all")

    return run


def frame_lists(folder: Path) -> None:
    from ponderv2.datasets.ponderv2 import recordings
    from ponderv2.errors import SceneError

    recordings._parsed_skip_list.cache_clear()
    recordings._parsed_frame_list.cache_clear()
    with contextlib.suppress(SceneError):
        recordings._parsed_skip_list(folder / "skip.lst", "")
    recordings._parsed_frame_list(folder / "train.json", "")


def store(folder: Path) -> Read:
    from ponderv2.data.scene_folder import open_folder
    from ponderv2.scenes.reader import DatasetInfo
    from ponderv2.store.store import SceneStore
    from ponderv2.workflows.prepare_report import read_report

    place = folder / "train/room"
    place.mkdir(parents=True)
    np.save(place / "coord.npy", np.zeros((3, 3), np.float32))

    def run(data: bytes) -> None:
        parts = [*data.split(seeds.SEPARATOR), b"", b""]
        (folder / "dataset.yaml").write_bytes(parts[0])
        (place / "prepared.json").write_bytes(parts[1])
        (folder / "prepare_report.json").write_bytes(parts[2])
        read_report(folder)
        SceneStore(folder, DatasetInfo("rooms")).record("room", "train")
        store = open_folder(folder)
        store.info.label_set("segment200")

    return run


def scene_arrays(folder: Path) -> Read:
    from ponderv2.errors import SceneError
    from ponderv2.scenes.array_folders import read_scene

    def run(data: bytes) -> None:
        for name in ("color", "normal", "segment", "coord"):
            (folder / f"{name}.npy").write_bytes(data)
            with contextlib.suppress(SceneError):
                read_scene(folder, "room")
            if name != "coord":
                (folder / f"{name}.npy").unlink()
            else:
                np.save(folder / "coord.npy", np.zeros((5, 3), np.float32))
                np.save(folder / "normal.npy", np.ones((5, 3), np.float32))

    np.save(folder / "coord.npy", np.zeros((5, 3), np.float32))
    return run


def cameras(folder: Path) -> Read:
    from ponderv2.scenes.array_folders import _read_frames

    def run(data: bytes) -> None:
        (folder / "cameras.npz").write_bytes(data)
        _read_frames(folder)

    return run


def preset(path: Path) -> None:
    from ponder_cli.presets import checked, read_layer
    from ponderv2.workflows.config import PretrainConfig

    checked(read_layer(path, "pretrain"), PretrainConfig)


def override(folder: Path) -> Read:
    from ponder_cli.layers import Layer, parse_override, with_override
    from ponder_cli.presets import checked, find_preset, read_layer
    from ponderv2.workflows.config import PretrainConfig

    preset = read_layer(find_preset("pretrain", "demo"), "pretrain")

    def written_out(layer: Layer) -> dict[str, Any]:
        return checked(layer, PretrainConfig).model_dump(mode="json")

    def run(data: bytes) -> None:
        layer = preset
        for text in data.decode("utf-8", "surrogateescape").split("\n")[:3]:
            layer = with_override(layer, parse_override(text), written_out)
        checked(layer, PretrainConfig)

    return run


def checkpoint(path: Path) -> None:
    from ponderv2.errors import CheckpointError
    from ponderv2.tasks.checkpoints import load_model

    try:
        load_model(path)
    except CheckpointError:
        if path.suffix != ".pth":
            raise
    path.write_bytes(_signed(path.read_bytes()))
    load_model(path)


def _signed(data: bytes) -> bytes:
    """With a checksum as ours: whoever damages a file on purpose can write one."""
    from ponderv2.training import checkpoint

    signed = data[:-2] + struct.pack("<H", checkpoint._COMMENT_LENGTH)
    return signed + checkpoint._MARK + hashlib.sha256(signed).hexdigest().encode()


def camera_path(path: Path) -> None:
    from ponderv2.reconstruction.camera_files import read_cameras

    read_cameras(path)


def embeddings(folder: Path) -> Read:
    from ponderv2.errors import PonderError
    from ponderv2.heads.text_embeddings import _read

    def run(data: bytes) -> None:
        for name in ("rows.npy", "rows.safetensors"):
            (folder / name).write_bytes(data)
            try:
                _read(folder / name)
            except PonderError:
                continue

    return run
