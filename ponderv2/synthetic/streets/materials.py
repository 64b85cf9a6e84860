"""Surfaces of the street: colours that say nothing about the class, and what a laser gets back from them."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from ponderv2.synthetic.materials import Material, Pattern

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class StreetMaterial(Material):
    """A material with its answer to a laser."""

    reflectivity: float = 0.3
    """Share of the light that comes back at normal incidence; above 1: a retroreflector."""
    shine: float = 0.0
    """Share of the sky that it mirrors in an image, 0..1."""
    night_glow: float = 0.0
    """Light that it gives by itself when it is dark, 0..1."""
    hole: float = 0.0
    """Share of laser pulses that pass it without an answer: glass, water."""


@dataclass(frozen=True)
class LaserTable:
    """What lasers and mirrors need of the materials of a street as arrays, one row each."""

    reflectivity: Float[np.ndarray, " material"]
    shine: Float[np.ndarray, " material"]
    night_glow: Float[np.ndarray, " material"]
    hole: Float[np.ndarray, " material"]


def tabulate_lasers(materials: Sequence[Material]) -> LaserTable:
    """Turn a list of materials into arrays; plain materials count as matt ones."""
    known = [one if isinstance(one, StreetMaterial) else _matt(one) for one in materials]
    names = ("reflectivity", "shine", "night_glow", "hole")
    return LaserTable(*(np.array([getattr(one, name) for one in known], np.float32) for name in names))


def _matt(material: Material) -> StreetMaterial:
    return StreetMaterial(material.pattern, material.first, material.second)


def flat(
    color: RGB, reflectivity: float = 0.3, shine: float = 0.0, night_glow: float = 0.0, hole: float = 0.0
) -> StreetMaterial:
    """One colour everywhere."""
    return StreetMaterial(
        Pattern.PLAIN,
        color,
        color,
        reflectivity=reflectivity,
        shine=shine,
        night_glow=night_glow,
        hole=hole,
    )


def cloudy(color: RGB, contrast: float, period: float, phase: float, reflectivity: float) -> StreetMaterial:
    """A colour that varies softly: asphalt, concrete, grass, leaves."""
    return StreetMaterial(
        Pattern.CLOUDS, color, shaded(color, contrast), period, phase, reflectivity=reflectivity
    )


def shaded(color: RGB, change: float) -> RGB:
    """Brighter or darker by a share."""
    red, green, blue = (min(max(channel * (1.0 + change), 0.01), 0.99) for channel in color)
    return red, green, blue


def any_color(rng: np.random.Generator) -> RGB:
    """Grey, muted or strong, dark or bright."""
    saturation = rng.choice((rng.uniform(0.0, 0.1), rng.uniform(0.1, 0.45), rng.uniform(0.45, 0.9)))
    return colorsys.hsv_to_rgb(float(rng.random()), float(saturation), float(rng.uniform(0.08, 0.92)))


def paint(rng: np.random.Generator) -> StreetMaterial:
    """Of vehicles, signs and street furniture: often white, grey or black, as cars are."""
    choice = rng.random()
    if choice < 0.55:
        grey = float(rng.choice((0.05, 0.12, 0.3, 0.5, 0.68, 0.86)) + rng.uniform(-0.03, 0.03))
        color: RGB = (grey, grey, float(min(grey * rng.uniform(0.97, 1.08), 1.0)))
    else:
        color = any_color(rng)
    bright = sum(color) / 3.0
    return flat(color, float(0.06 + 0.4 * bright * rng.uniform(0.6, 1.2)), shine=0.18)


def cloth(rng: np.random.Generator) -> StreetMaterial:
    """Clothes and bags: any colour, sometimes striped or checked."""
    color = any_color(rng)
    pattern = Pattern(
        int(
            rng.choice(
                (Pattern.PLAIN, Pattern.STRIPES, Pattern.CHECKS, Pattern.CLOUDS), p=(0.7, 0.1, 0.1, 0.1)
            )
        )
    )
    second = any_color(rng) if pattern in (Pattern.STRIPES, Pattern.CHECKS) else shaded(color, -0.2)
    return StreetMaterial(
        pattern,
        color,
        second,
        float(rng.uniform(0.05, 0.2)),
        float(rng.uniform(3, 50)),
        reflectivity=float(rng.uniform(0.1, 0.6)),
    )


def wall(rng: np.random.Generator) -> StreetMaterial:
    """Plaster, brick or panels of any colour, mostly pale."""
    pale = rng.random() < 0.6
    color = (
        colorsys.hsv_to_rgb(
            float(rng.uniform(0.02, 0.16)), float(rng.uniform(0.05, 0.35)), float(rng.uniform(0.5, 0.9))
        )
        if pale
        else any_color(rng)
    )
    kind = rng.random()
    reflectivity = float(rng.uniform(0.12, 0.5))
    phase = float(rng.uniform(3, 50))
    if kind < 0.4:
        return cloudy(color, -0.12, float(rng.uniform(0.8, 3.0)), phase, reflectivity)
    pattern = Pattern.PLANKS if kind < 0.6 else Pattern.TILES
    period = float(rng.uniform(0.15, 0.3)) if pattern == Pattern.PLANKS else float(rng.uniform(0.5, 1.5))
    second = shaded(color, float(rng.uniform(-0.35, -0.1)))
    return StreetMaterial(pattern, color, second, period, phase, reflectivity=reflectivity)


def leaves(rng: np.random.Generator) -> StreetMaterial:
    """Green, brown, yellow, red or blossoms."""
    hue = float(
        rng.choice(
            (rng.uniform(0.2, 0.36), rng.uniform(0.04, 0.16), rng.uniform(0.85, 0.98)), p=(0.78, 0.16, 0.06)
        )
    )
    color = colorsys.hsv_to_rgb(hue, float(rng.uniform(0.25, 0.65)), float(rng.uniform(0.2, 0.6)))
    return cloudy(
        color, float(rng.uniform(-0.55, -0.3)), 0.5, float(rng.uniform(3, 50)), float(rng.uniform(0.12, 0.4))
    )


def skin(rng: np.random.Generator) -> StreetMaterial:
    """Faces and hands."""
    light = float(rng.uniform(0.25, 0.85))
    return flat((light, light * 0.75, light * 0.6), 0.3)


def other_phase(material: StreetMaterial, phase: float) -> StreetMaterial:
    """The same material with its pattern shifted."""
    return replace(material, phase=phase)


GLASS = flat((0.06, 0.08, 0.1), 0.1, shine=0.45, hole=0.75)
"""Of vehicles and shop windows."""
RUBBER = flat((0.04, 0.04, 0.045), 0.05)
METAL = flat((0.45, 0.46, 0.48), 0.35, shine=0.15)
DARK = flat((0.1, 0.1, 0.11), 0.12)
LAMP = flat((0.9, 0.9, 0.85), 1.2, night_glow=1.0)
"""Headlights."""
REAR_LAMP = flat((0.7, 0.05, 0.04), 1.4, night_glow=0.7)
PLATE = flat((0.9, 0.88, 0.6), 2.5)
"""Number plates."""
RETRO = flat((0.92, 0.93, 0.95), 3.0)
"""Reflecting foil of signs, cones and vests."""
BARK = StreetMaterial(Pattern.WOOD, (0.25, 0.18, 0.12), (0.14, 0.1, 0.07), 0.12, 7.0, reflectivity=0.2)
