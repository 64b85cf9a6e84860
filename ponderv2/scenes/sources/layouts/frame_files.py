"""`frame-XXXXXX.{color,depth,pose}` in one folder: 7-Scenes, and BundleFusion with its info.txt."""

from __future__ import annotations

from pathlib import Path

from ponderv2.errors import SceneError
from ponderv2.scenes.sources.capture import Capture, Lens, PictureFile, RawFrame, pinhole
from ponderv2.scenes.sources.layouts.picture_lists import common_ids, frame_id
from ponderv2.scenes.sources.text_files import checked_intrinsics, numbers, read_lens, read_pose, read_text

EXPECTS_7SCENES = "frame-000000.color.png (or .jpg), frame-000000.depth.png, frame-000000.pose.txt"
EXPECTS_BUNDLEFUSION = EXPECTS_7SCENES + " and info.txt"
KINECT = pinhole(585.0, 585.0, 320.0, 240.0)


def matches_7scenes(path: Path) -> bool:
    """Poses and depth pictures by name."""
    return path.is_dir() and any(path.glob("frame-*.pose.txt")) and any(path.glob("frame-*.depth.*"))


def matches_bundlefusion(path: Path) -> bool:
    """The same with an info.txt."""
    return (path / "info.txt").is_file() and matches_7scenes(path)


def read_7scenes(path: Path) -> Capture:
    """Depth in millimetres, 65535 invalid; the cameras are not registered to each other."""
    known = next(
        (path / name for name in ("camera-intrinsics.txt", "intrinsics.txt") if (path / name).is_file()), None
    )
    depth_lens = read_lens(known) if known else Lens(KINECT, (640, 480))
    note = f"depth camera from {known.name}" if known else "depth camera: the published f=585, c=(320, 240)"
    notes = (note, "7-Scenes does not calibrate colour to depth: see --color-intrinsics and --depth-to-color")
    return _capture(path, "7scenes", depth_lens, depth_lens, notes=notes)


def read_bundlefusion(path: Path) -> Capture:
    """Cameras, sizes and depth shift from info.txt."""
    info = dict(_entries(read_text(path / "info.txt")))
    lenses = {}
    for kind in ("Color", "Depth"):
        try:
            matrix = numbers(info[f"m_calibration{kind}Intrinsic"]).reshape(4, 4)[:3, :3]
            size = (int(info[f"m_{kind.lower()}Width"]), int(info[f"m_{kind.lower()}Height"]))
            lenses[kind] = Lens(checked_intrinsics(matrix, path / "info.txt"), size)
        except (KeyError, ValueError) as error:
            raise SceneError(f"{path / 'info.txt'} lacks the {kind.lower()} camera ({error})") from error
    try:
        shift = float(info.get("m_depthShift", 1000.0))
    except ValueError as error:
        raise SceneError(f"{path / 'info.txt'} has a depth shift that is no number ({error})") from error
    if not shift > 0:
        raise SceneError(f"{path / 'info.txt'} has a depth shift of {shift:g}")
    return _capture(path, "bundlefusion", lenses["Color"], lenses["Depth"], 1.0 / shift)


def _entries(text: str) -> list[tuple[str, str]]:
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return [(name.strip(), value.strip()) for name, value in pairs]


def _capture(
    path: Path,
    layout: str,
    color_lens: Lens,
    depth_lens: Lens,
    depth_scale: float = 0.001,
    notes: tuple[str, ...] = (),
) -> Capture:
    colors = {frame_id(one.name): one for one in sorted(path.glob("frame-*.color.*"))}
    depths = {frame_id(one.name): one for one in sorted(path.glob("frame-*.depth.*"))}
    poses = {frame_id(one.name): one for one in sorted(path.glob("frame-*.pose.txt"))}
    ids, repairs = common_ids(path, colour=colors, depth=depths, pose=poses)
    frames = tuple(
        RawFrame(
            depths[one].name.split(".")[0],
            PictureFile(colors[one]),
            PictureFile(depths[one]),
            read_pose(poses[one]),
            color_lens,
            depth_lens,
        )
        for one in ids
    )
    return Capture(layout, frames, depth_scale, notes=notes, repairs=repairs)
