"""What a hand-held depth camera makes of an exact photograph: noise, quantisation, holes, exposure."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from ponderv2.scenes.sources.synthetic_config import SyntheticConfig
from ponderv2.scenes.synthetic.photography import Photograph, Pinhole

NEAR = 0.35
"""The sensor measures nothing closer, metres."""
GRAZING = 0.17
"""Cosine between ray and normal below which measurements begin to fail."""


def depth_deviation(depth: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Standard deviation of the sensor, metres: 1.2 mm + 1.9 mm/m² (z - 0.4 m)², Nguyen et al. 2012."""
    return 0.0012 + 0.0019 * (depth - 0.4) ** 2


def depth_step(depth: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Distance of two depths that the sensor tells apart, metres: grows with the square of depth."""
    return 0.0014 * depth**2 + 1e-4


def sense_depth(
    rng: np.random.Generator, photograph: Photograph, camera: Pinhole, config: SyntheticConfig
) -> Float[np.ndarray, "row column"]:
    """Measured depth, metres, 0 = no measurement."""
    exact = photograph.depth
    noise = rng.standard_normal(exact.shape)
    holes = rng.random(exact.shape)
    shuffled = _displaced(exact, rng)
    measured = shuffled + config.depth_noise * depth_deviation(shuffled) * noise
    step = depth_step(np.maximum(measured, NEAR))
    measured = np.round(measured / step) * step
    ray = camera.directions
    cosine = np.abs((photograph.normal * ray).sum(axis=-1)) / np.linalg.norm(ray, axis=-1)
    failure = 0.01 + 0.9 * np.clip((GRAZING - cosine) / GRAZING, 0.0, 1.0)
    failure = np.maximum(failure, 0.45 * _at_edge(exact))
    failure = np.maximum(failure, 0.4 * (photograph.glass > 0))
    seen = (shuffled > NEAR) & (measured > NEAR) & (measured < config.max_depth) & (exact > 0)
    return np.where(seen & (holes >= failure), measured, 0.0)


def _displaced(
    depth: Float[np.ndarray, "row column"], rng: np.random.Generator
) -> Float[np.ndarray, "row column"]:
    """Beside an edge some pixels show the other side of it: the sensor's correlation window is wide."""
    edge = _at_edge(depth)
    rows, columns = np.indices(depth.shape)
    moves = rng.integers(-1, 2, (2, *depth.shape)) * edge
    rows = np.clip(rows + moves[0], 0, depth.shape[0] - 1)
    columns = np.clip(columns + moves[1], 0, depth.shape[1] - 1)
    return depth[rows, columns]


def _at_edge(depth: Float[np.ndarray, "row column"]) -> np.ndarray:
    """True where a neighbour is more than 5 % (and 4 cm) nearer or further."""
    limit = np.maximum(0.05 * depth, 0.04)
    edge = np.zeros(depth.shape, dtype=bool)
    for axis in (0, 1):
        jump = np.abs(np.diff(depth, axis=axis))
        one, other = [slice(None)] * 2, [slice(None)] * 2
        one[axis], other[axis] = slice(0, -1), slice(1, None)
        edge[tuple(one)] |= jump > limit[tuple(one)]
        edge[tuple(other)] |= jump > limit[tuple(other)]
    return edge


def sense_color(rng: np.random.Generator, photograph: Photograph) -> UInt8[np.ndarray, "row column 3"]:
    """Colour with exposure and white balance of the frame, lens blur, darker corners and noise."""
    from scipy.ndimage import correlate1d

    gain = rng.uniform(0.9, 1.1) * (1.0 + rng.uniform(-0.03, 0.03, 3))
    kernel = np.array([0.15, 0.7, 0.15])
    blurred = correlate1d(correlate1d(np.clip(photograph.color, 0.0, 1.3), kernel, axis=0), kernel, axis=1)
    height, width = photograph.depth.shape
    row, column = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    vignette = 1.0 - 0.06 * (row**2 + column**2)
    color = np.clip(blurred * gain * vignette[..., None], 0.0, 1.0)
    deviation = 0.006 + 0.014 * np.sqrt(color)
    return to_bytes(color + deviation * rng.standard_normal(color.shape))


def to_bytes(color: Float[np.ndarray, "*shape 3"]) -> UInt8[np.ndarray, "*shape 3"]:
    """Colour 0..1 to 0..255."""
    return np.clip(np.round(color * 255.0), 0, 255).astype(np.uint8)
