"""Pictures of a segmented LiDAR scan: its classes in the images of the cameras, and from above."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray
from torch import Tensor

from ponderv2.data.datasets import LabelledDataset
from ponderv2.errors import SceneError
from ponderv2.reconstruction.images import RgbImage, write_rgb
from ponderv2.reconstruction.scan_images import points_in_image, seen_from_above, tiled, titled
from ponderv2.scenes.scene import Scene, evenly_spread
from ponderv2.tasks.prediction_clouds import class_palette
from ponderv2.tasks.segmentation.scan_submission import own_scan

MOST_SCENES = 4
"""Of a split that pictures are drawn of, evenly spread."""
WIDTH = 480
"""Of the image of a camera, pixels."""
COLUMNS = 3
REACH = 50.0
"""Seen from above, metres to each side; less where nearly all points lie nearer."""
TITLES = ("predicted", "true", "red: other than true")
RIGHT, WRONG, UNKNOWN = (150, 150, 150), (230, 40, 40), (60, 60, 60)


def is_scan(scene: Scene) -> bool:
    """Whether the points are those of a LiDAR."""
    return own_scan(scene) is not None or "intensity" in scene.cloud.fields


def pictured(data: LabelledDataset) -> tuple[int, ...]:
    """Scenes that pictures are drawn of; none where they are not of a LiDAR."""
    if not is_scan(data.scene(0)):
        return ()
    return evenly_spread(range(len(data)), MOST_SCENES)


def write_pictures(
    folder: Path, data: LabelledDataset, index: int, classes: Int[Tensor, " point"]
) -> list[Path]:
    """`<scene>_above.png`: the classes, beside them the true ones and what differs, where they are known.
    `<scene>_cameras.png`: the classes in the images, below them the true ones.

    Images that cannot be read are left out; without any there is no picture of cameras. Raises OutputError.
    """
    scene = data.store.read(data.names[index], data.split, labels=True, frames="all")
    palette = class_palette(data)
    truth = scene.cloud.labels.get(data.label_field)
    colors = [palette[classes.clamp(max=len(palette) - 2).numpy()]]
    differs: list[ndarray] = []
    if truth is not None:
        true = truth.long().clamp(min=-1, max=len(palette) - 2).numpy()
        colors.append(palette[true])
        differs = [_differences(classes.numpy(), true)]
    name = data.names[index].replace("/", "_")
    coord = scene.cloud.coord.numpy()
    reach = min(REACH, max(5.0, float(np.quantile(np.abs(coord[:, :2]).max(axis=1), 0.99))))
    above = [seen_from_above(coord, color, reach) for color in (*colors, *differs)]
    above = [titled(image, text) for image, text in zip(above, TITLES, strict=False)]
    written = [write_rgb(folder / f"{name}_above.png", tiled(above, len(above)))]
    images = _camera_images(scene, coord, colors)
    if images is not None:
        written.append(write_rgb(folder / f"{name}_cameras.png", images))
    return written


def _differences(classes: Int[ndarray, " point"], truth: Int[ndarray, " point"]) -> UInt8[ndarray, "point 3"]:
    color = np.where((classes == truth)[:, None], RIGHT, WRONG)
    return np.where((truth < 0)[:, None], UNKNOWN, color).astype(np.uint8)


def _camera_images(scene: Scene, coord: ndarray, colors: list[ndarray]) -> RgbImage | None:
    rows: list[list[RgbImage]] = [[] for _ in colors]
    for frame in scene.frames:
        try:
            image = _resized(frame.read_color().numpy())
        except SceneError:
            continue
        for row, color, text in zip(rows, colors, TITLES, strict=False):
            drawn = points_in_image(image, frame.camera, coord, color)
            row.append(titled(drawn, f"{frame.sensor or frame.id}, {text}"))
    if not rows[0]:
        return None
    height = max(image.shape[0] for image in rows[0])
    padded = [[_padded(image, height) for image in row] for row in rows]
    return np.concatenate([tiled(row, min(COLUMNS, len(row))) for row in padded])


def _resized(image: RgbImage) -> UInt8[ndarray, "height width 3"]:
    from PIL import Image

    height = max(1, round(image.shape[0] * WIDTH / image.shape[1]))
    return np.asarray(Image.fromarray(image).resize((WIDTH, height), Image.Resampling.BILINEAR))


def _padded(image: RgbImage, height: int) -> UInt8[ndarray, "height width 3"]:
    return np.pad(image, ((0, height - image.shape[0]), (0, 0), (0, 0)))
