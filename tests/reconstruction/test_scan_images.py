"""Drawn LiDAR points against where a pixel must be."""

from __future__ import annotations

import numpy as np
import torch

from ponderv2.geometry.cameras import Camera
from ponderv2.reconstruction.scan_images import EDGE, points_in_image, seen_from_above, tiled

RED, BLUE = np.array([255, 0, 0], np.uint8), np.array([0, 0, 255], np.uint8)


def test_points_are_drawn_where_the_camera_sees_them_and_the_nearest_covers_others() -> None:
    intrinsics = torch.tensor([[40.0, 0.0, 19.5], [0.0, 40.0, 9.5], [0.0, 0.0, 1.0]])
    camera = Camera(intrinsics, torch.eye(4), 40, 20)
    image = np.full((20, 40, 3), 9, np.uint8)
    coord = np.array([[0.5, 0.25, 4.0], [1.0, 0.5, 8.0], [0.0, 0.0, -3.0], [50.0, 0.0, 2.0]], np.float32)
    drawn = points_in_image(image, camera, coord, np.stack([RED, BLUE, BLUE, BLUE]), side=1)
    # 19.5 + 40 / 8 = 24.5 and 9.5 + 40 / 16 = 12: the far point lies behind the near one.
    assert np.argwhere((drawn != 9).any(axis=2)).tolist() == [[12, 25]]
    assert drawn[12, 25].tolist() == RED.tolist() and (image == 9).all()
    small = points_in_image(image[::2, ::2], camera, coord, np.stack([RED, BLUE, BLUE, BLUE]), side=1)
    assert np.argwhere((small != 9).any(axis=2)).tolist() == [[6, 12]]


def test_from_above_x_is_to_the_right_and_the_highest_point_on_top() -> None:
    coord = np.array([[2.5, 7.5, 3.0], [2.5, 7.5, 1.0], [-30.0, 0.0, 0.0]], np.float32)
    image = seen_from_above(coord, np.stack([RED, BLUE, BLUE]), reach=10.0, pixels=20, side=1)
    assert image[2, 12].tolist() == RED.tolist()
    assert not (image == BLUE).all(axis=2).any()


def test_tiles_are_filled_with_black() -> None:
    found = tiled([np.full((4, 5, 3), n, np.uint8) for n in (1, 2, 3)], 2)
    assert found.shape == (2 * (4 + EDGE), 2 * (5 + EDGE), 3)
    assert found[0, 0, 0] == 1 and found[0, 5 + EDGE, 0] == 2 and found[4 + EDGE, 0, 0] == 3
    assert not found[4 + EDGE :, 5 + EDGE :].any()
