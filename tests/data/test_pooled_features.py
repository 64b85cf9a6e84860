"""Features averaged in space against the sums written out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ponderv2.data.pooled_features import PooledFeatures
from ponderv2.data.views import FramePixels, surface_points
from ponderv2.scenes.scene import Frame
from tests.data.test_views import HEIGHT, WIDTH, decoded, frame

ROWS, COLUMNS = 4, 8
DEVIATION = 0.4


def pictures(seed: int):
    """Frames `a` and `b` have features at two depths, `c` has none, `d` no depth."""

    def pixels(frame: Frame) -> FramePixels:
        rng = torch.Generator().manual_seed(seed + ord(frame.id))
        flat = decoded(torch.full((HEIGHT, WIDTH), 2.03 if frame.id == "a" else 2.31))
        values = torch.randn(3, ROWS, COLUMNS, generator=rng).half()
        return replace(flat, image_feature=None if frame.id == "c" else values, measured=frame.id != "d")

    return pixels


def numbers() -> torch.Tensor:
    row = ((torch.arange(ROWS) + 0.5) * HEIGHT / ROWS).long()
    column = ((torch.arange(COLUMNS) + 0.5) * WIDTH / COLUMNS).long()
    return (row[:, None] * WIDTH + column).flatten()


def written_out(decode) -> tuple[np.ndarray, np.ndarray]:
    """Middles of the cells and the Gaussian means of their features, cell by cell."""
    cells: dict[tuple[int, ...], list[tuple[np.ndarray, np.ndarray]]] = {}
    points, values = [], []
    for one in (frame("a"), frame("b")):
        pixels = decode(one)
        points.append(surface_points(one, pixels, numbers()).numpy())
        values.append(pixels.image_feature.flatten(1).T.float().numpy())
    coord, feature = np.concatenate(points), np.concatenate(values)
    index = np.floor(coord / (0.75 * DEVIATION)).astype(int)
    for key, point, value in zip(map(tuple, index), coord, feature, strict=True):
        cells.setdefault(key, []).append((point, value))
    middle = np.stack([np.mean([p for p, _ in own], axis=0) for own in cells.values()])
    mean = np.stack([np.mean([v for _, v in own], axis=0) for own in cells.values()])
    count = np.minimum([len(own) for own in cells.values()], 8.0)
    found = np.zeros_like(mean)
    for i in range(len(middle)):
        distance = np.linalg.norm(middle - middle[i], axis=1)
        weight = np.exp(-0.5 * (distance / DEVIATION) ** 2) * count * (distance <= 2.5 * DEVIATION)
        found[i] = (weight[:, None] * mean).sum(0) / weight.sum()
    return middle, found


def test_gaussian_means_over_all_images() -> None:
    decode = pictures(0)
    pooled = PooledFeatures.of([frame(name) for name in "abcd"], decode, DEVIATION, 3)
    middle, expected = written_out(decode)
    found = pooled.at(torch.from_numpy(middle).float())
    torch.testing.assert_close(found, torch.from_numpy(expected).float(), rtol=2e-3, atol=2e-3)
    assert len(pooled.feature) == len(middle)
    assert pooled.n_bytes > 2 * 3 * len(middle)


def test_places_that_no_image_shows_have_none() -> None:
    pooled = PooledFeatures.of([frame("a")], pictures(1), DEVIATION, 3)
    assert bool((pooled.at(torch.full((2, 3), 50.0)) == 0).all())
    assert pooled.at(torch.zeros(0, 3)).shape == (0, 3)


def test_without_features_or_depth_nothing_is_found() -> None:
    pooled = PooledFeatures.of([frame("c"), frame("d")], pictures(2), DEVIATION, 3)
    assert bool((pooled.at(torch.zeros(4, 3)) == 0).all())
    assert pooled.at(torch.zeros(4, 3)).shape == (4, 3)
