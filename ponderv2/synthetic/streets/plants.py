"""Trees, bushes and hedges. The frame stands on z = 0."""

from __future__ import annotations

import numpy as np

from ponderv2.synthetic.parts import Part, tube
from ponderv2.synthetic.streets.materials import BARK, leaves
from ponderv2.synthetic.streets.shapes import foliage


def tree(rng: np.random.Generator) -> list[Part]:
    """A broad-leaved tree, a conifer, a palm, or a bare one."""
    kind = str(rng.choice(("broad", "conifer", "palm", "bare"), p=(0.68, 0.16, 0.08, 0.08)))
    tall = float(rng.uniform(4.5, 11.0))
    thick = 0.02 * tall + float(rng.uniform(0.03, 0.1))
    if kind == "conifer":
        return _conifer(rng, tall, thick)
    if kind == "palm":
        return _palm(rng, tall, thick)
    return _broad(rng, tall, thick, bare=kind == "bare")


def _broad(rng: np.random.Generator, tall: float, thick: float, bare: bool) -> list[Part]:
    fork = tall * float(rng.uniform(0.28, 0.42))
    lean = rng.normal(0.0, 0.03, 2) * tall
    top = (float(lean[0]), float(lean[1]), fork)
    parts = [tube((0.0, 0.0, -0.2), top, (thick, thick * 0.7), BARK, 8)]
    n_limbs = int(rng.integers(4, 8))
    tips = []
    for index in range(n_limbs):
        angle = 2 * np.pi * (index + rng.uniform(-0.3, 0.3)) / n_limbs
        reach = tall * float(rng.uniform(0.1, 0.27))
        tip = np.array([reach * np.cos(angle), reach * np.sin(angle), tall * float(rng.uniform(0.55, 0.85))])
        tips.append(tip)
        parts.append(tube(top, tuple(tip), (thick * 0.45, thick * 0.12), BARK, 5))
        if bare:
            for _ in range(4):
                twig = tip + rng.normal(0.0, 0.1 * tall, 3)
                parts.append(tube(tuple(top + 0.6 * (tip - top)), tuple(twig), (thick * 0.15, 0.01), BARK, 4))
    if bare:
        return parts
    centers = np.array([*tips, (*top[:2], tall * 0.78)])
    radii = np.stack(
        [rng.uniform(0.14, 0.22, len(centers)) * tall] * 2 + [rng.uniform(0.12, 0.18, len(centers)) * tall],
        axis=1,
    )
    return [*parts, foliage(rng, centers, radii, int(70 * tall), 0.035 * tall + 0.08, leaves(rng))]


def _conifer(rng: np.random.Generator, tall: float, thick: float) -> list[Part]:
    parts = [tube((0.0, 0.0, -0.2), (0.0, 0.0, tall * 0.9), (thick, 0.03), BARK, 7)]
    start, wide = float(rng.uniform(0.08, 0.2)), float(rng.uniform(0.16, 0.26)) * tall
    share = np.linspace(0.0, 1.0, 7)
    centers = np.stack([0 * share, 0 * share, tall * (start + (0.97 - start) * share)], axis=1)
    radii = np.stack([wide * (1.05 - share)] * 2 + [0 * share + 0.1 * tall], axis=1)
    return [*parts, foliage(rng, centers, radii, int(65 * tall), 0.04 * tall, leaves(rng))]


def _palm(rng: np.random.Generator, tall: float, thick: float) -> list[Part]:
    lean = rng.normal(0.0, 0.06, 2) * tall
    top = np.array([lean[0], lean[1], tall * 0.85])
    parts = [tube((0.0, 0.0, -0.2), tuple(top), (thick, thick * 0.6), BARK, 8)]
    green = leaves(rng)
    for angle in np.arange(9) * 2 * np.pi / 9 + rng.random():
        out = np.array([np.cos(angle), np.sin(angle), 0.0])
        steps = np.linspace(0.1, 1.0, 6)[:, None]
        droop = np.array([0.0, 0.0, 1.0]) * (0.5 * steps - 0.9 * steps**2)
        centers = top + 0.26 * tall * (out * steps + droop)
        parts.append(foliage(rng, centers, np.full((6, 3), 0.18), 26, 0.2, green))
    return parts


def bush(rng: np.random.Generator) -> list[Part]:
    """Low leaves from the ground up."""
    size = float(rng.uniform(0.4, 1.1))
    n_blobs = int(rng.integers(1, 4))
    centers = np.column_stack([rng.normal(0.0, size * 0.6, (n_blobs, 2)), np.full(n_blobs, size * 0.6)])
    radii = size * rng.uniform(0.7, 1.1, (n_blobs, 3))
    return [foliage(rng, centers, radii, 130 * n_blobs, 0.16 * size + 0.04, leaves(rng))]


def hedge(rng: np.random.Generator, length: float) -> list[Part]:
    """A clipped row along x that starts at the origin."""
    tall, half = float(rng.uniform(0.8, 1.9)), float(rng.uniform(0.3, 0.5))
    n_blobs = max(int(length / 0.7), 1)
    x = (np.arange(n_blobs) + 0.5) * length / n_blobs
    centers = np.column_stack([x, 0 * x, 0 * x + tall / 2])
    radii = np.tile((0.55, half, tall / 2), (n_blobs, 1))
    return [foliage(rng, centers, radii, int(150 * length), 0.13, leaves(rng))]
