"""A picture to look at: points of the LiDAR in every image of a key frame, boxes, and both from above.

Colours of points go with distance, from red (near) over green to blue (far). Metres.
"""

from __future__ import annotations

import colorsys
import math

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from torch import Tensor

from ponderv2.checks.drive import in_image, in_lidar
from ponderv2.errors import SceneError
from ponderv2.geometry.boxes import EDGES
from ponderv2.geometry.cameras import project
from ponderv2.geometry.transforms import transform_points
from ponderv2.scenes.scene import Frame, Scene

WIDTH = 640
"""Pixels of an image in the picture."""
COLUMNS = 3
NEAR, FAR = 3.0, 60.0
"""Metres: ends of the colour map."""
ABOVE = 50.0
"""Metres to each side in the view from above."""
FRONT = {0, 1, 4, 5}
"""Corners of the front of a box."""
BOX_COLOR, FRONT_COLOR = (255, 255, 255), (255, 0, 255)
INSIDE_COLOR, OUTSIDE_COLOR = (255, 170, 40), (120, 130, 140)


def picture(scene: Scene, title: str = "") -> UInt8[ndarray, "row column 3"]:
    """Cameras from left to right as they look, starting in front, then the view from above."""
    scene = in_lidar(scene)
    frames = sorted((one for one in scene.frames if one.has_color), key=_direction)
    tiles = [_image(scene, frame) for frame in frames]
    size = max([tile.shape[0] for tile in tiles], default=WIDTH // 2)
    tiles.append(_from_above(scene, max(size, WIDTH)))
    rows = [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]
    height = [max(tile.shape[0] for tile in row) for row in rows]
    whole = np.zeros((sum(height) + 24, WIDTH * min(COLUMNS, len(tiles)), 3), np.uint8)
    top = 24
    for row, one in zip(rows, height, strict=True):
        for column, tile in enumerate(row):
            whole[top : top + tile.shape[0], column * WIDTH : column * WIDTH + tile.shape[1]] = tile
        top += one
    return _written(whole, title or scene.name)


def _direction(frame: Frame) -> float:
    """Clockwise from the axis of the first camera: the angle at which a camera looks, from above."""
    ahead = torch.linalg.inv(frame.camera.world_to_camera.double())[:3, 2]
    return -math.atan2(float(ahead[1]), float(ahead[0]))


def _image(scene: Scene, frame: Frame) -> UInt8[ndarray, "row column 3"]:
    points = scene.cloud.coord
    pixel, inside = in_image(points, frame)
    scale = WIDTH / frame.camera.width
    try:
        shown = _resized(frame.read_color().numpy(), scale)
        words = f"{frame.sensor or frame.id}: {int(inside.sum())} points"
    except SceneError as error:
        shown = np.zeros((round(frame.camera.height * scale), WIDTH, 3), np.uint8)
        words = f"{frame.sensor or frame.id}: {error.message}"
    away = points[inside].norm(dim=1)
    order = torch.argsort(away, descending=True)  # near points over far ones
    dots = ((pixel[inside] + 0.5) * scale)[order].long().numpy()
    colors = _colors(away[order].numpy())
    for right in (0, 1):
        for below in (0, 1):
            x = np.clip(dots[:, 0] + right, 0, shown.shape[1] - 1)
            shown[np.clip(dots[:, 1] + below, 0, shown.shape[0] - 1), x] = colors
    return _written(_with_boxes(shown, scene, frame, scale), words)


def _with_boxes(shown: ndarray, scene: Scene, frame: Frame, scale: float) -> UInt8[ndarray, "row column 3"]:
    if scene.boxes is None or not len(scene.boxes):
        return shown
    from PIL import Image, ImageDraw

    canvas = Image.fromarray(shown)
    draw = ImageDraw.Draw(canvas)
    corners = scene.boxes.corners().double()
    in_camera = transform_points(frame.camera.world_to_camera.double(), corners.reshape(-1, 3))
    pixel, depth = project(in_camera, frame.camera.intrinsics.double())
    places, ahead = (pixel * scale).reshape(-1, 8, 2).numpy(), (depth > 0.5).reshape(-1, 8).numpy()
    for corner, seen in zip(places, ahead, strict=True):
        for first, second in EDGES:
            if seen[first] and seen[second] and np.abs(corner[[first, second]]).max() < 4 * WIDTH:
                color = FRONT_COLOR if {first, second} <= FRONT else BOX_COLOR
                draw.line([*corner[first], *corner[second]], fill=color)
    return np.array(canvas)


def _from_above(scene: Scene, size: int) -> UInt8[ndarray, "row column 3"]:
    """x to the right, y upwards; points in boxes in another colour, headings drawn."""
    from PIL import Image, ImageDraw

    size = min(size, WIDTH)
    scale = size / (2 * ABOVE)
    shown = np.zeros((size, WIDTH, 3), np.uint8)
    points = scene.cloud.coord
    near = (points[:, :2].abs() < ABOVE - 0.1).all(dim=1)
    inside = _inside(scene, points)
    for mask, color in ((near & ~inside, OUTSIDE_COLOR), (near & inside, INSIDE_COLOR)):
        place = points[mask].numpy()
        column = (place[:, 0] * scale + size / 2).astype(np.int64)
        row = (size / 2 - place[:, 1] * scale).astype(np.int64)
        shown[np.clip(row, 0, size - 1), np.clip(column, 0, size - 1)] = color
    canvas = Image.fromarray(shown)
    draw = ImageDraw.Draw(canvas)
    if scene.boxes is not None:
        for corner in scene.boxes.corners()[:, :4, :2].numpy():
            place = [(size / 2 + scale * float(x), size / 2 - scale * float(y)) for x, y in corner]
            draw.polygon(place, outline=BOX_COLOR)
            draw.line([*place[0], *place[1]], fill=FRONT_COLOR)
    words = f"from above, {2 * ABOVE:.0f} m, x to the right; {int(inside.sum())} points in boxes"
    return _written(np.array(canvas), words)


def _inside(scene: Scene, points: Float[Tensor, "point 3"]) -> Bool[Tensor, " point"]:
    found = torch.zeros(len(points), dtype=torch.bool)
    if scene.boxes is not None:
        for index in range(len(scene.boxes)):
            one = scene.boxes.take(torch.tensor([index]))
            near = ((points - one.center[0]).abs().amax(dim=1) <= one.size[0].norm() / 2).nonzero()[:, 0]
            found[near] |= one.contains(points[near])[0]
    return found


def _colors(away: Float[ndarray, " point"]) -> UInt8[ndarray, "point 3"]:
    """By the logarithm of the distance."""
    table = np.array([colorsys.hsv_to_rgb(0.7 * i / 255, 1.0, 1.0) for i in range(256)])
    share = np.log(np.clip(away, NEAR, FAR) / NEAR) / math.log(FAR / NEAR)
    return (255 * table[(255 * share).astype(np.int64)]).astype(np.uint8)


def _resized(color: UInt8[ndarray, "row column 3"], scale: float) -> UInt8[ndarray, "_row _column 3"]:
    from PIL import Image

    size = WIDTH, max(round(color.shape[0] * scale), 1)
    return np.array(Image.fromarray(color).resize(size, Image.Resampling.BILINEAR))


def _written(shown: UInt8[ndarray, "row column 3"], words: str) -> UInt8[ndarray, "row column 3"]:
    """With words in the upper left corner."""
    from PIL import Image, ImageDraw

    canvas = Image.fromarray(shown)
    draw = ImageDraw.Draw(canvas)
    words = words.encode("latin-1", "replace").decode("latin-1")
    draw.rectangle(draw.textbbox((4, 4), words), fill=(0, 0, 0))
    draw.text((4, 4), words, fill=(255, 255, 255))
    return np.array(canvas)
