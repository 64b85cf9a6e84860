"""Images of clouds: the nearest point is seen, what faces away is not, and the cloud fits into the image."""

from __future__ import annotations

import numpy as np
import pytest

from ponderv2.reconstruction.cloud_images import BACKGROUND, CloudView, cloud_image, oblique_view

FROM_ABOVE = CloudView(np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, -1]]), np.zeros(2), 1.0)


def cloud(seed: int, n_points: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    coord = generator.uniform(-9, 9, (n_points, 3))
    return coord, generator.integers(0, 200, (n_points, 3)).astype(np.uint8)


def test_every_pixel_shows_the_nearest_of_the_points_that_cover_it(monkeypatch):
    from ponderv2.reconstruction import cloud_images

    monkeypatch.setattr(cloud_images, "_side", lambda coord, view: 3)
    coord, color = cloud(0, 60)
    image = cloud_image(coord, color, None, FROM_ABOVE, 20, 16)
    expected = np.full((16, 20, 3), BACKGROUND, np.uint8)
    for row in range(16):
        for column in range(20):
            x, y = np.floor(coord[:, 0] + 10), np.floor(8 - coord[:, 1])
            covers = (abs(x - column) <= 1) & (abs(y - row) <= 1)
            if covers.any():
                highest = np.flatnonzero(covers)[coord[covers, 2].argmax()]
                expected[row, column] = color[highest]
    assert np.array_equal(image, expected)


def test_what_faces_away_is_left_out_and_what_has_no_normal_is_shown():
    coord = np.array([[0.0, 0, 5], [0.0, 0, 0]])
    color = np.array([[200, 0, 0], [0, 200, 0]], np.uint8)
    normals = {"down": [0.0, 0, -1], "up": [0.0, 0, 1], "none": [0.0, 0, 0]}
    seen = {}
    for name, normal in normals.items():
        image = cloud_image(coord, color, np.array([normal, [0.0, 0, 1]]), FROM_ABOVE, 9, 9)
        seen[name] = image[4, 4].tolist()
    assert seen["down"] == [0, 200, 0] and seen["up"] == [200, 0, 0]
    assert seen["none"][0] > 0 and seen["none"][1] == 0


def test_surfaces_seen_at_an_angle_are_darker():
    coord, color = np.zeros((1, 3)), np.full((1, 3), 200, np.uint8)
    flat, tilted = (
        cloud_image(coord, color, np.array([normal]), FROM_ABOVE, 5, 5)[2, 2, 0]
        for normal in ([0.0, 0.0, 1.0], [0.8, 0.0, 0.6])
    )
    assert flat == 200 and 100 < tilted < 200


@pytest.mark.parametrize("scale", [0.01, 1.0, 300.0])
def test_the_cloud_fills_the_image_whatever_its_size(scale: float):
    coord, color = cloud(1, 4000)
    coord = coord * np.array([1.0, 0.4, 0.1]) * scale + 1000.0 * scale
    view = oblique_view(coord, None, 120, 80)
    image = cloud_image(coord, color, None, view, 120, 80)
    rows, columns = np.nonzero((image != BACKGROUND).any(axis=2))
    assert np.ptp(columns) > 100 or np.ptp(rows) > 65
    place = (coord @ view.axes[:2].T - view.centre) * view.pixels_per_metre
    assert (np.abs(place) < np.array([62, 42])).all()
    np.testing.assert_allclose(view.axes @ view.axes.T, np.eye(3), atol=1e-12)
    assert view.forward[2] < -0.5


def test_of_the_two_sides_the_one_that_more_points_face_is_taken():
    coord, _ = cloud(2, 1000)
    coord = coord * np.array([1.0, 0.3, 0.1])
    for towards in (1.0, -1.0):
        normal = np.tile([0.0, towards, 0.0], (1000, 1))
        assert oblique_view(coord, normal, 60, 40).forward[1] * towards < 0


def test_no_points_make_a_white_image():
    empty = cloud_image(np.zeros((0, 3)), np.zeros((0, 3), np.uint8), np.zeros((0, 3)), FROM_ABOVE, 8, 4)
    assert empty.shape == (4, 8, 3) and (empty == BACKGROUND).all()
