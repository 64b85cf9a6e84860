"""Calibration files of KITTI: a name and numbers per line. Maps into the rectified camera 0, metres."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray

from ponderv2.datasets.drives import camera_fault, inverse
from ponderv2.errors import SceneError
from ponderv2.geometry.cameras import Camera
from ponderv2.io.images import image_size
from ponderv2.io.text import read_text
from ponderv2.scenes.scene import Frame

AGAIN = "copy or extract the file again"
IMAGE_ENDINGS = ("png", "jpg", "jpeg", "PNG", "JPG", "JPEG")


@dataclass(frozen=True)
class KittiCalibration:
    """Of one drive or frame."""

    lidar_to_rectified: Float64[ndarray, "4 4"]
    """From the LiDAR into the rectified frame of camera 0 (x right, y down, z forward)."""
    projections: dict[str, Float64[ndarray, "3 4"]]
    """P0..P3: from that frame to pixels of a camera; the last column is its offset."""

    def camera_to_lidar(self, name: str) -> tuple[Float64[ndarray, "3 3"], Float64[ndarray, "4 4"]]:
        """Intrinsics of camera P0..P3, and its pose in the frame of the LiDAR."""
        projection = self.projections[name]
        intrinsics = projection[:, :3]
        offset = np.eye(4)
        offset[:3, 3] = np.linalg.solve(intrinsics, projection[:, 3])
        return intrinsics, np.linalg.inv(offset @ self.lidar_to_rectified)


def read_calibration(path: Path) -> KittiCalibration:
    """Calibration of the object benchmark or of an odometry sequence. Raises SceneError."""
    rows: dict[str, Float64[ndarray, " number"]] = {}
    try:
        for line in read_text(path).splitlines():
            name, _, numbers = line.partition(":")
            if numbers.strip():
                rows[name.strip()] = np.array(numbers.split(), np.float64)
    except (OSError, ValueError) as error:
        raise SceneError(f"the calibration {path} cannot be read ({error})", fix=AGAIN) from error
    found = rows.get("Tr_velo_to_cam", rows.get("Tr_velo_cam", rows.get("Tr")))
    cameras = {name: rows[name] for name in ("P0", "P1", "P2", "P3") if name in rows}
    sizes = [len(one) for one in cameras.values()]
    if found is None or len(found) != 12 or not sizes or set(sizes) != {12}:
        raise SceneError(
            f"the calibration {path} lacks P0..P3 or Tr (Tr_velo_to_cam) of 12 numbers", fix=AGAIN
        )
    matrices = [found, *cameras.values()]
    if not all(np.isfinite(one).all() for one in matrices):
        raise SceneError(f"the calibration {path} holds numbers that are not finite", fix=AGAIN)
    lidar_to_camera, rectify = np.eye(4), np.eye(4)
    lidar_to_camera[:3] = found.reshape(3, 4)
    turn = rows.get("R0_rect", rows.get("R_rect"))
    if turn is not None and len(turn) == 9:
        rectify[:3, :3] = turn.reshape(3, 3)
    if abs(np.linalg.det(rectify @ lidar_to_camera)) < 1e-6:
        raise SceneError(f"the calibration {path} holds a matrix that is not invertible", fix=AGAIN)
    return KittiCalibration(
        rectify @ lidar_to_camera, {name: one.reshape(3, 4) for name, one in cameras.items()}
    )


def image_file(folder: Path, name: str) -> Path:
    """The image of a frame: a PNG as published, or one that was converted."""
    paths = [folder / f"{name}.{ending}" for ending in IMAGE_ENDINGS]
    return next((path for path in paths if path.is_file()), paths[0])


def camera_frame(path: Path, name: str, calibration: KittiCalibration, sensor: str) -> Frame:
    """The image of a camera as a frame in the frame of the LiDAR.

    Raises SceneError with the reason where there is none: no file, no calibration, or one of another size.
    """
    if not path.is_file():
        raise SceneError(f"there is no file {path.name}")
    width, height = image_size(path)
    if name not in calibration.projections:
        raise SceneError(f"the calibration lacks {name}")
    try:
        intrinsics, pose = calibration.camera_to_lidar(name)
    except np.linalg.LinAlgError as error:
        raise SceneError(f"its intrinsics {name} are not invertible") from error
    why = camera_fault(intrinsics, width, height)
    if why:
        raise SceneError(why)
    camera = Camera(torch.from_numpy(intrinsics.copy()).float(), inverse(pose), width, height)
    return Frame(id=sensor, camera=camera, color_path=path, time=0.0, sensor=sensor)
