"""`frame-XXXXXX.{color,depth,pose}` in one folder: 7-Scenes, and exports of .sens files with info.txt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ponderv2.datasets.camera_text import checked_intrinsics, read_pose
from ponderv2.datasets.recordings import Recording
from ponderv2.datasets.rgbd.calibration import find_calibration
from ponderv2.datasets.rgbd.config import RgbdConfig
from ponderv2.datasets.rgbd.image_folders import files_like, list_images, raw_frames
from ponderv2.datasets.rgbd.pairing import Pairing, Poses, pair_frames
from ponderv2.errors import SceneError
from ponderv2.geometry.intrinsics import Intrinsics, pinhole
from ponderv2.io.text import numbers, read_text

EXPECTS_7SCENES = "frame-000000.color.png (or .jpg), frame-000000.depth.png, frame-000000.pose.txt"
EXPECTS_BUNDLEFUSION = EXPECTS_7SCENES + " and info.txt (or _info.txt)"
KINECT = pinhole(585.0, 585.0, 320.0, 240.0)
INFO_FILES = ("info.txt", "_info.txt")
UNCALIBRATED = "7-Scenes does not calibrate colour to depth: see --color-intrinsics and --depth-to-color"


def matches_7scenes(path: Path) -> bool:
    """Poses and depth images by name."""
    return bool(files_like(path, "frame-*.pose.txt") and files_like(path, "frame-*.depth.*"))


def matches_bundlefusion(path: Path) -> bool:
    """The same with an info.txt."""
    return bool(_info_files(path)) and matches_7scenes(path)


def read_7scenes(path: Path, config: RgbdConfig = RgbdConfig()) -> Recording:
    """Depth in millimetres, 65535 invalid; the cameras are not registered to each other."""
    known = find_calibration(path)
    depth_intrinsics = known.depth or Intrinsics(KINECT, (640, 480))
    notes = list(known.notes)
    if known.depth is None:
        notes.append("depth camera: the published f=585, c=(320, 240)")
    if known.color is None or known.color is known.depth:
        notes += [UNCALIBRATED] if files_like(path, "frame-*.color.*") else []
    recording = _recording(
        path,
        "7scenes",
        (known.color or depth_intrinsics, depth_intrinsics),
        config,
        known.depth_scale or 0.001,
    )
    recording = replace(recording, unit_declared=known.depth_scale is not None)
    return _with_notes(recording, notes, known.repairs)


def read_bundlefusion(path: Path, config: RgbdConfig = RgbdConfig()) -> Recording:
    """Cameras, sizes and depth shift from info.txt, which some programs call _info.txt."""
    files = _info_files(path)
    if not files:
        raise SceneError(f"no info.txt in {path}", fix=f"this layout holds {EXPECTS_BUNDLEFUSION}")
    color, depth, shift = _cameras(files[0])
    repairs = [
        f"{files[0].name} and {other.name} contradict each other: the first was used; see --intrinsics"
        for other in files[1:]
        if _entries(read_text(other)) != _entries(read_text(files[0]))
    ]
    recording = _recording(path, "bundlefusion", (color, depth), config, 1.0 / shift)
    recording = replace(recording, unit_declared=True)
    return _with_notes(recording, [f"cameras and depth scale from {files[0].name}"], tuple(repairs))


def _info_files(path: Path) -> list[Path]:
    return [one for name in INFO_FILES for one in files_like(path, name)]


def _cameras(file: Path) -> tuple[Intrinsics, Intrinsics, float]:
    """Colour camera, depth camera, units per metre."""
    info = _entries(read_text(file))
    cameras = []
    for kind in ("Color", "Depth"):
        try:
            matrix = numbers(info[f"m_calibration{kind}Intrinsic"]).reshape(4, 4)[:3, :3]
            size = (int(info[f"m_{kind.lower()}Width"]), int(info[f"m_{kind.lower()}Height"]))
            cameras.append(Intrinsics(checked_intrinsics(matrix, file), size))
        except (KeyError, ValueError) as error:
            raise SceneError(f"{file} lacks the {kind.lower()} camera ({error})") from error
    try:
        shift = float(info.get("m_depthShift", 1000.0))
    except ValueError as error:
        raise SceneError(f"{file} has a depth shift that is not a number ({error})") from error
    if not shift > 0:
        raise SceneError(f"{file} has a depth shift of {shift:g}")
    return cameras[0], cameras[1], shift


def _entries(text: str) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _recording(
    path: Path, layout: str, cameras: tuple[Intrinsics, Intrinsics], config: RgbdConfig, depth_scale: float
) -> Recording:
    """`lenses`: of colour and depth."""
    colors, depths = list_images(path, "frame-*.color.*"), list_images(path, "frame-*.depth.*")
    files = files_like(path, "frame-*.pose.txt")
    matrices = np.stack([read_pose(one) for one in files]) if files else np.zeros((0, 4, 4))
    poses = Poses(matrices, tuple(one.stem for one in files))
    pairing = pair_frames(path, colors.names_or_none, depths.names, poses, config.pairing)
    frames = raw_frames(pairing, _ids(pairing), colors.paths, depths.paths, *cameras)
    notes = (*pairing.notes, *colors.notes, *depths.notes)
    return Recording(layout, frames, depth_scale, notes=notes, repairs=pairing.repairs)


def _ids(pairing: Pairing) -> tuple[str, ...]:
    """`frame-000000` of `frame-000000.depth`."""
    names = tuple(frame.name for frame in pairing.frames)
    short = tuple(name.split(".")[0] for name in names)
    return short if len(set(short)) == len(short) else names


def _with_notes(recording: Recording, notes: list[str], repairs: tuple[str, ...]) -> Recording:
    return replace(recording, notes=(*notes, *recording.notes), repairs=(*repairs, *recording.repairs))
