"""Boxes to look at: in the images of the cameras, from above, and as lines of points.

Predicted boxes have the colour of their class, annotated ones are white; the front is the brighter edge.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from ponderv2.errors import SceneError
from ponderv2.geometry.boxes import EDGES, Boxes
from ponderv2.geometry.cameras import Camera, project
from ponderv2.geometry.detections import Detections
from ponderv2.geometry.transforms import transform_points
from ponderv2.io.files import write_bytes
from ponderv2.io.ply import encode_ply
from ponderv2.reconstruction.images import RgbImage, write_rgb
from ponderv2.reconstruction.scan_images import seen_from_above, tiled, titled
from ponderv2.scenes.scene import Frame, Scene, evenly_spread

TRUE_COLOR = (255, 255, 255)
WIDTH, COLUMNS = 480, 3
MOST_FRAMES = 6
ABOVE = 800
"""Pixels of the picture from above."""
REACH = 50.0
"""From above, metres to each side; less where nearly all points lie nearer."""
NEAREST = 0.1
"""Edges nearer to the camera than this are cut off, metres."""
STEP = 0.02
"""Between the points of an edge, metres."""


def class_color(number: int) -> tuple[int, int, int]:
    """A colour of a class that differs from those of its neighbours."""
    red, green, blue = colorsys.hsv_to_rgb((0.13 + 0.381966 * number) % 1.0, 0.85, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def write_pictures(
    folder: Path, scene: Scene, found: Detections, truth: Boxes | None, classes: Sequence[str]
) -> list[Path]:
    """`<scene>_above.png`, and `<scene>_cameras.png` where the scene has images that can be read.

    Raises OutputError.
    """
    name = scene.name.replace("/", "_")
    written = [write_rgb(folder / f"{name}_above.png", from_above(scene, found, truth, classes))]
    tiles = []
    for frame in evenly_spread(scene.frames, MOST_FRAMES):
        if not frame.has_color:
            continue
        try:
            tiles.append(titled(in_image(frame, found, truth), frame.sensor or frame.id))
        except SceneError:
            continue
    if tiles:
        height = max(tile.shape[0] for tile in tiles)
        padded = [np.pad(tile, ((0, height - tile.shape[0]), (0, 0), (0, 0))) for tile in tiles]
        written.append(write_rgb(folder / f"{name}_cameras.png", tiled(padded, min(COLUMNS, len(tiles)))))
    return written


def from_above(scene: Scene, found: Detections, truth: Boxes | None, classes: Sequence[str]) -> RgbImage:
    """Points by height, annotated boxes in white, predicted ones in the colours of their classes."""
    from PIL import Image, ImageDraw

    coord = scene.cloud.coord.numpy()
    middle, reach = np.zeros(3, np.float32), REACH
    if len(coord):
        low, high = np.quantile(coord[:, :2], 0.01, axis=0), np.quantile(coord[:, :2], 0.99, axis=0)
        is_scan = "intensity" in scene.cloud.fields or bool(scene.sweeps)
        if not is_scan:
            middle[:2] = (low + high) / 2
        reach = min(REACH, 1.1 * float(np.abs(np.stack([low, high]) - middle[:2]).max()) + 0.5)
    if scene.cloud.color is not None:
        shade = scene.cloud.color.numpy().astype(np.uint8)
    else:
        height = (
            np.clip((coord[:, 2] - np.quantile(coord[:, 2], 0.02)) / 4.0, 0.0, 1.0)
            if len(coord)
            else coord[:, 2]
        )
        shade = np.repeat((70 + 110 * height)[:, None], 3, axis=1).astype(np.uint8)
    image = seen_from_above(coord - middle, shade, reach, pixels=ABOVE)
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    scale = ABOVE / (2.0 * reach)

    def outline(boxes: Boxes, colors: Sequence[tuple[int, int, int]], width: int) -> None:
        for corner, color in zip(boxes.corners()[:, :4, :2].tolist(), colors, strict=True):
            place = [
                ((x - float(middle[0])) * scale + ABOVE / 2, ABOVE / 2 - (y - float(middle[1])) * scale)
                for x, y in corner
            ]
            draw.polygon(place, outline=color, width=width)
            centre = tuple(sum(one) / 4 for one in zip(*place, strict=True))
            front = tuple((a + b) / 2 for a, b in zip(place[0], place[1], strict=True))
            draw.line([*centre, *front], fill=color)

    if truth is not None:
        known = truth.take(truth.category >= 0)
        outline(known, [TRUE_COLOR] * len(known), 1)
    outline(found.boxes, [class_color(int(one)) for one in found.boxes.category], 2)
    for row, number in enumerate(sorted(set(found.boxes.category.tolist()))):
        draw.text((6, 18 + 13 * row), str(classes[number]), fill=class_color(number))
    return titled(np.asarray(canvas), f"{scene.name}: found; white: annotated; {2 * reach:.0f} m")


def in_image(frame: Frame, found: Detections, truth: Boxes | None) -> RgbImage:
    """Boxes in an image. Raises SceneError where the image cannot be read."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(frame.read_color().numpy().astype(np.uint8))
    height = max(1, round(image.height * WIDTH / image.width))
    canvas = image.resize((WIDTH, height), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(canvas)
    scale = WIDTH / frame.camera.width
    if truth is not None:
        for line in edges_in_image(truth.take(truth.category >= 0), frame.camera)[0]:
            draw.line([scale * float(one) for one in line], fill=TRUE_COLOR)
    lines, box = edges_in_image(found.boxes, frame.camera)
    for line, number in zip(lines, box, strict=True):
        color = class_color(int(found.boxes.category[number]))
        draw.line([scale * float(one) for one in line], fill=color, width=2)
    return np.asarray(canvas)


def edges_in_image(boxes: Boxes, camera: Camera) -> tuple[Float[ndarray, "edge 4"], list[int]]:
    """Column and row of both ends of the edges in front of a camera, cut where they come too near; and the
    box of each."""
    corners = transform_points(camera.world_to_camera.double(), boxes.corners().double().reshape(-1, 3))
    ends = corners.reshape(-1, 8, 3)[:, torch.tensor(EDGES)].reshape(-1, 2, 3)
    box = torch.arange(len(boxes)).repeat_interleave(len(EDGES))
    depth = ends[..., 2]
    ahead = (depth > NEAREST).any(dim=1)
    ends, depth, box = ends[ahead], depth[ahead], box[ahead]
    share = (NEAREST - depth) / (depth.flip(1) - depth).where(depth != depth.flip(1), torch.ones(1).double())
    cut = ends + share.clamp(0.0, 1.0)[..., None] * (ends.flip(1) - ends)
    ends = torch.where((depth < NEAREST)[..., None], cut, ends)
    pixel, _ = project(ends.reshape(-1, 3), camera.intrinsics.double())
    place = pixel.reshape(-1, 4)
    limit = 4.0 * max(camera.width, camera.height)
    near = (place.abs() < limit).all(dim=1)
    return place[near].numpy(), box[near].tolist()


def write_boxes(path: Path, found: Detections, origin: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Path:
    """The edges of boxes as coloured points, in the frame of the scene; `origin` is added in double
    precision, in which positions are then written. Raises OutputError."""
    points, color = edge_points(found.boxes)
    coord = points.numpy()
    if any(origin):
        coord = coord.astype(np.float64) + origin
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, encode_ply(coord, None, None, color.numpy()))
    return path


def edge_points(boxes: Boxes) -> tuple[Float[Tensor, "point 3"], UInt8[Tensor, "point 3"]]:
    """Points along the edges, as many on each edge of a box, and the colours of their classes."""
    if not len(boxes):
        return torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.uint8)
    ends = boxes.corners()[:, torch.tensor(EDGES)]
    n_steps = max(2, min(400, round(float(boxes.size.max()) / STEP)))
    share = torch.linspace(0.0, 1.0, n_steps)[:, None]
    points = ends[:, :, 0, None] + share * (ends[:, :, 1] - ends[:, :, 0])[:, :, None]
    colors = torch.tensor([class_color(int(one)) for one in boxes.category], dtype=torch.uint8)
    return points.reshape(-1, 3), colors.repeat_interleave(len(EDGES) * n_steps, dim=0)
