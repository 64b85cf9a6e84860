"""Replica as rendered for NICE-SLAM: results/frame*.jpg, results/depth*.png, traj.txt."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ponderv2.errors import SceneError
from ponderv2.scenes.sources.capture import Capture, Lens, PictureFile, RawFrame, pinhole
from ponderv2.scenes.sources.layouts.picture_lists import common_ids, frame_id
from ponderv2.scenes.sources.text_files import numbers, read_json, read_text

EXPECTS = "results/frame000000.jpg, results/depth000000.png, traj.txt"
BESIDE = ("cam_params.json", "{name}_mesh.ply")


def matches(path: Path) -> bool:
    """The trajectory and the pictures by name."""
    return (path / "traj.txt").is_file() and any((path / "results").glob("depth*.png"))


def read(path: Path) -> Capture:
    """6553.5 units a metre unless cam_params.json says otherwise; the mesh beside the folder is the cloud."""
    colors = {frame_id(one.stem): one for one in sorted((path / "results").glob("frame*.*"))}
    depths = {frame_id(one.stem): one for one in sorted((path / "results").glob("depth*.*"))}
    lines = [line for line in read_text(path / "traj.txt").splitlines() if line.strip()]
    poses = {str(index): _pose(line) for index, line in enumerate(lines)}
    ids, repairs = common_ids(path, colour=colors, depth=depths, pose=poses)
    lens, scale, note = _camera(path)
    frames = tuple(
        RawFrame(
            f"{int(one):06d}", PictureFile(colors[one]), PictureFile(depths[one]), poses[one], lens, lens
        )
        for one in ids
    )
    mesh = path.parent / f"{path.name}_mesh.ply"
    cloud = mesh if mesh.is_file() else None
    return Capture("replica", frames, scale, z_is_up=True, cloud=cloud, notes=(note,), repairs=repairs)


def _pose(line: str) -> np.ndarray:
    try:
        return numbers(line).reshape(4, 4)
    except ValueError:
        return np.full((4, 4), np.nan)


def _camera(path: Path) -> tuple[Lens, float, str]:
    """NICE-SLAM puts cam_params.json beside the scenes."""
    for candidate in (path / "cam_params.json", path.parent / "cam_params.json"):
        if candidate.is_file():
            try:
                values = read_json(candidate)["camera"]
                matrix = pinhole(*(float(values[name]) for name in ("fx", "fy", "cx", "cy")))
                size = (int(values["w"]), int(values["h"]))
                return Lens(matrix, size), 1.0 / float(values["scale"]), f"camera from {candidate.name}"
            except (KeyError, TypeError, ValueError, ArithmeticError) as error:
                raise SceneError(f"{candidate} is not a camera file ({error})") from error
    lens = Lens(pinhole(600.0, 600.0, 599.5, 339.5), (1200, 680))
    return lens, 1.0 / 6553.5, "camera: the published f=600, c=(599.5, 339.5)"
