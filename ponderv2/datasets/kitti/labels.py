"""Boxes of KITTI's label and result files: middle of the lower face in the rectified camera, turn about y."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray

from ponderv2.datasets.drives import usable_boxes
from ponderv2.datasets.kitti_calibration import KittiCalibration
from ponderv2.errors import SceneError
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.cameras import Camera
from ponderv2.geometry.detections import Detections
from ponderv2.geometry.transforms import transform_points
from ponderv2.io.text import read_text

BOX_CLASSES = ("Car", "Pedestrian", "Cyclist")
"""Of the benchmark."""
TYPES = ("Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc")
"""All that is annotated, but for regions that do not count (DontCare), which have no box in space."""
NEAREST = 0.1
"""Corners behind the camera are projected as if they were that far in front of it, metres."""


def read_boxes(path: Path, calibration: KittiCalibration, notes: list[str]) -> Boxes:
    """Boxes of a label file in the frame of the LiDAR.

    A line holds type, truncation, occlusion, angle, four sides in the image, height, width, length, the
    middle of the lower face in the rectified camera, and the turn about its y axis, which points down. All
    but the angle is kept: fields `truncated`, `occluded`, `image_box` (left, top, right, bottom, pixels) and
    `source_category` (of `TYPES`). Raises SceneError for a line that is not such.
    """
    rows: list[list[float]] = []
    types: list[str] = []
    try:
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            words = line.split()
            if words and words[0] != "DontCare":
                if len(words) < 15:
                    raise ValueError(f"line {number} has {len(words) - 1} numbers, expected 14")
                rows.append([float(word) for word in words[1:15]])
                types.append(words[0])
        numbers = np.array(rows, np.float64).reshape(len(rows), 14)
    except (OSError, ValueError) as error:
        raise SceneError(f"the labels {path} are damaged ({error})", fix="copy the file again") from error
    good = usable_boxes(numbers, numbers[:, 7:10], notes)
    numbers, types = numbers[good], [one for one, is_good in zip(types, good, strict=True) if is_good]
    height, width, length = numbers[:, 7], numbers[:, 8], numbers[:, 9]
    to_lidar = np.linalg.inv(calibration.lidar_to_rectified)
    middle = numbers[:, 10:13] - np.stack([0 * height, height / 2, 0 * height], axis=1)
    center = middle @ to_lidar[:3, :3].T + to_lidar[:3, 3]
    heading = _headings(numbers[:, 13]) @ to_lidar[:3, :3].T
    further = {
        "image_box": torch.from_numpy(numbers[:, 3:7]).float(),
        "truncated": torch.from_numpy(numbers[:, 0]).float(),
        "occluded": torch.from_numpy(numbers[:, 1]).long(),
        "source_category": torch.tensor([_place(one, TYPES) for one in types], dtype=torch.long),
    }
    return Boxes(
        center=torch.from_numpy(center).float(),
        size=torch.from_numpy(np.stack([length, width, height], axis=1)).float(),
        yaw=torch.from_numpy(np.arctan2(heading[:, 1], heading[:, 0])).float(),
        velocity=torch.full((len(types), 3), torch.nan),
        category=torch.tensor([_place(one, BOX_CLASSES) for one in types], dtype=torch.long),
        instance=torch.full((len(types),), -1, dtype=torch.long),
        fields=further,
    )


def _headings(turns: Float64[ndarray, " box"]) -> Float64[ndarray, "box 3"]:
    """In the rectified camera: along x for no turn, towards -z, which is backwards, for a quarter."""
    return np.stack([np.cos(turns), np.zeros_like(turns), -np.sin(turns)], axis=1)


def _place(name: str, names: tuple[str, ...]) -> int:
    return names.index(name) if name in names else -1


def with_image_boxes(boxes: Boxes, camera: Camera) -> Boxes:
    """The boxes with a field `image_box`: left, top, right, bottom of their corners in the image, pixels.

    Cut off at the border of the image; without extent where the centre is behind the camera.
    """
    matrix = camera.world_to_camera.double()
    corners = transform_points(matrix, boxes.corners().double().reshape(-1, 3).to(matrix.device))
    center = transform_points(matrix, boxes.center.double().to(matrix.device))
    rays = corners @ camera.intrinsics.double().T
    pixel = (rays[:, :2] / rays[:, 2:].clamp(min=NEAREST)).reshape(-1, 8, 2)
    limit = torch.tensor([camera.width - 1.0, camera.height - 1.0]).to(pixel)
    pixel = torch.minimum(pixel.clamp(min=0.0), limit)
    image_box = torch.cat([pixel.amin(dim=1), pixel.amax(dim=1)], dim=1)
    image_box = torch.where(center[:, 2:] > 0.0, image_box, torch.zeros_like(image_box))
    return replace(boxes, fields={**boxes.fields, "image_box": image_box.float().to(boxes.center.device)})


def result_lines(detections: Detections, camera: Camera, calibration: KittiCalibration) -> list[str]:
    """A line of a result file for each detection that the image shows; the inverse of `read_boxes`.

    Truncation and occlusion are -1, unknown; the last number is the score.
    """
    boxes = with_image_boxes(detections.boxes, camera)
    image_box = boxes.fields["image_box"].double().cpu().numpy().reshape(-1, 4)
    matrix = calibration.lidar_to_rectified
    size = boxes.size.double().cpu().numpy()
    place = boxes.center.double().cpu().numpy() @ matrix[:3, :3].T + matrix[:3, 3]
    place[:, 1] += size[:, 2] / 2
    turn = _turns(boxes.yaw.double().cpu().numpy(), matrix)
    lines = []
    for i in range(len(detections)):
        left, top, right, bottom = image_box[i]
        if right <= left or bottom <= top:
            continue
        angle = turn[i] - np.arctan2(place[i, 0], place[i, 2])
        length, width, height = size[i]
        numbers = (np.arctan2(np.sin(angle), np.cos(angle)), *image_box[i], height, width, length)
        text = " ".join(
            f"{value:.4f}" for value in (*numbers, *place[i], turn[i], float(detections.score[i]))
        )
        lines.append(f"{BOX_CLASSES[int(boxes.category[i])]} -1 -1 {text}")
    return lines


def _turns(
    yaw: Float64[ndarray, " box"], lidar_to_rectified: Float64[ndarray, "4 4"]
) -> Float64[ndarray, " box"]:
    """Turns about y in the rectified camera, by the yaw of the same headings in the LiDAR from above."""
    to_lidar = np.linalg.inv(lidar_to_rectified[:3, :3])
    x, z = np.linalg.solve(to_lidar[:2, [0, 2]], np.stack([np.cos(yaw), np.sin(yaw)]))
    return np.arctan2(-z, x)
