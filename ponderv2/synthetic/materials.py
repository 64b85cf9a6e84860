"""Procedural surface colours: what a material is, and its colour at points. Texture coordinates in metres."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from jaxtyping import Float, Int


class Pattern(IntEnum):
    """How the two colours of a material are laid out."""

    PLAIN = 0
    WOOD = 1
    STRIPES = 2
    CHECKS = 3
    CLOUDS = 4
    TILES = 5
    PLANKS = 6
    SPECKLE = 7
    PAINTING = 8


@dataclass(frozen=True)
class Material:
    """Two colours and the pattern that mixes them."""

    pattern: Pattern
    first: tuple[float, float, float]
    """Red, green, blue, 0..1."""
    second: tuple[float, float, float]
    period: float = 0.1
    """Size of one repetition, metres."""
    phase: float = 0.0
    """Shifts the pattern, so that two materials of one kind do not coincide."""
    glow: float = 0.0
    """Light that the surface gives by itself, 0..1."""
    glass: bool = False
    """Depth sensors often miss it."""


@dataclass(frozen=True)
class Style:
    """The materials that the furniture of one room shares, whatever its class."""

    materials: tuple[Material, ...]

    def pick(self, rng: np.random.Generator) -> Material:
        """Any material of the room."""
        return self.materials[rng.integers(len(self.materials))]


def make_style(rng: np.random.Generator, n_materials: int = 9) -> Style:
    """Draw the shared materials of one room."""
    return Style(tuple(random_material(rng) for _ in range(n_materials)))


def random_material(rng: np.random.Generator) -> Material:
    """A wood, cloth, paint or stone of any colour."""
    patterns = (Pattern.PLAIN, Pattern.WOOD, Pattern.STRIPES, Pattern.CHECKS, Pattern.CLOUDS, Pattern.SPECKLE)
    pattern = Pattern(int(rng.choice(patterns, p=(0.24, 0.32, 0.1, 0.08, 0.16, 0.1))))
    first = _wood_color(rng) if pattern == Pattern.WOOD else _any_color(rng)
    contrast = rng.uniform(0.1, 0.35) * rng.choice((-1.0, 1.0))
    second = _shaded(first, contrast)
    if pattern in (Pattern.STRIPES, Pattern.CHECKS) and rng.random() < 0.4:
        second = _any_color(rng)
    period = {Pattern.WOOD: (0.03, 0.08), Pattern.CLOUDS: (0.1, 0.4), Pattern.SPECKLE: (0.01, 0.03)}
    low, high = period.get(pattern, (0.06, 0.25))
    return Material(pattern, first, second, float(rng.uniform(low, high)), float(rng.uniform(3.0, 50.0)))


def plain(color: tuple[float, float, float], glow: float = 0.0, glass: bool = False) -> Material:
    """One colour everywhere."""
    return Material(Pattern.PLAIN, color, color, glow=glow, glass=glass)


def wall_material(rng: np.random.Generator) -> Material:
    """Paint or paper: mostly pale, sometimes strong, from the same range as the furniture."""
    first = _pale_color(rng) if rng.random() < 0.7 else _any_color(rng)
    pattern = Pattern(
        int(
            rng.choice(
                (Pattern.PLAIN, Pattern.CLOUDS, Pattern.STRIPES, Pattern.TILES, Pattern.WOOD),
                p=(0.4, 0.25, 0.15, 0.1, 0.1),
            )
        )
    )
    period = float(rng.uniform(0.15, 0.5))
    return Material(
        pattern, first, _shaded(first, -rng.uniform(0.04, 0.15)), period, float(rng.uniform(3, 50))
    )


def floor_material(rng: np.random.Generator) -> Material:
    """Boards, tiles or carpet."""
    pattern = Pattern(
        int(
            rng.choice(
                (Pattern.PLANKS, Pattern.TILES, Pattern.SPECKLE, Pattern.CHECKS, Pattern.CLOUDS),
                p=(0.45, 0.2, 0.15, 0.05, 0.15),
            )
        )
    )
    first = _wood_color(rng) if pattern == Pattern.PLANKS or rng.random() < 0.3 else _any_color(rng)
    low, high = (0.02, 0.04) if pattern == Pattern.SPECKLE else (0.1, 0.4)
    period = float(rng.uniform(low, high))
    return Material(pattern, first, _shaded(first, -rng.uniform(0.1, 0.3)), period, float(rng.uniform(3, 50)))


def painting_material(rng: np.random.Generator, glow: float = 0.0) -> Material:
    """Blobs of two unrelated colours: pictures and switched-on screens."""
    return Material(
        Pattern.PAINTING,
        _any_color(rng),
        _any_color(rng),
        float(rng.uniform(0.1, 0.4)),
        float(rng.uniform(3, 50)),
        glow,
    )


def _any_color(rng: np.random.Generator) -> tuple[float, float, float]:
    saturation = rng.choice((rng.uniform(0.0, 0.15), rng.uniform(0.15, 0.5), rng.uniform(0.5, 0.85)))
    return colorsys.hsv_to_rgb(rng.random(), float(saturation), float(rng.uniform(0.25, 0.95)))


def _pale_color(rng: np.random.Generator) -> tuple[float, float, float]:
    return colorsys.hsv_to_rgb(rng.random(), float(rng.uniform(0.0, 0.25)), float(rng.uniform(0.7, 0.95)))


def _wood_color(rng: np.random.Generator) -> tuple[float, float, float]:
    return colorsys.hsv_to_rgb(
        float(rng.uniform(0.04, 0.12)), float(rng.uniform(0.2, 0.65)), float(rng.uniform(0.3, 0.9))
    )


def _shaded(color: tuple[float, float, float], change: float) -> tuple[float, float, float]:
    red, green, blue = (min(max(channel * (1.0 + change * 1.4), 0.02), 0.98) for channel in color)
    return red, green, blue


@dataclass(frozen=True)
class MaterialTable:
    """The materials of a room as arrays, one row each."""

    pattern: Int[np.ndarray, " material"]
    first: Float[np.ndarray, "material 3"]
    second: Float[np.ndarray, "material 3"]
    period: Float[np.ndarray, " material"]
    phase: Float[np.ndarray, " material"]
    glow: Float[np.ndarray, " material"]
    glass: Int[np.ndarray, " material"]


def tabulate(materials: list[Material]) -> MaterialTable:
    """Turn a list of materials into arrays."""
    return MaterialTable(
        np.array([int(m.pattern) for m in materials]),
        np.array([m.first for m in materials], dtype=np.float32).reshape(-1, 3),
        np.array([m.second for m in materials], dtype=np.float32).reshape(-1, 3),
        np.array([m.period for m in materials], dtype=np.float32),
        np.array([m.phase for m in materials], dtype=np.float32),
        np.array([m.glow for m in materials], dtype=np.float32),
        np.array([int(m.glass) for m in materials]),
    )


def albedo(
    table: MaterialTable,
    material: Int[np.ndarray, " point"],
    position: Float[np.ndarray, "point 3"],
    normal: Float[np.ndarray, "point 3"],
    footprint: Float[np.ndarray, " point"],
) -> Float[np.ndarray, "point 3"]:
    """Colour 0..1 of surface points, before light.

    `position` and `normal` are in the frame of the part (longest side along z). `footprint` is the size of a
    pixel on the surface, metres: patterns finer than it fade to their mean, as in a real image.
    """
    period = table.period[material]
    scaled = position / period[:, None] + table.phase[material][:, None]
    across, along = _surface_axes(scaled, normal)
    mix = np.zeros(len(material), dtype=np.float32)
    patterns = table.pattern[material]
    for pattern in np.unique(patterns):
        chosen = patterns == pattern
        mix[chosen] = _mix(Pattern(int(pattern)), scaled[chosen], across[chosen], along[chosen])
    sharpness = np.clip(period / (2.0 * footprint + 1e-6), 0.0, 1.0)
    mix = 0.5 + (mix - 0.5) * sharpness
    mix[patterns == Pattern.PLAIN] = 0.0
    return table.first[material] + mix[:, None] * (table.second[material] - table.first[material])


def _surface_axes(
    scaled: Float[np.ndarray, "point 3"], normal: Float[np.ndarray, "point 3"]
) -> tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]:
    """The two coordinates that vary along the surface; the second is the long side where it lies in it."""
    facing = np.abs(normal).argmax(axis=1)
    across = np.where(facing == 0, scaled[:, 1], scaled[:, 0])
    along = np.where(facing == 2, scaled[:, 1], scaled[:, 2])
    return across, along


def _mix(
    pattern: Pattern,
    scaled: Float[np.ndarray, "point 3"],
    across: Float[np.ndarray, " point"],
    along: Float[np.ndarray, " point"],
) -> Float[np.ndarray, " point"]:
    """Share 0..1 of the second colour."""
    match pattern:
        case Pattern.PLAIN:
            return np.zeros_like(across)
        case Pattern.WOOD:
            grain = value_noise(scaled * np.array([1.0, 1.0, 0.08], dtype=np.float32))
            return 0.5 + 0.5 * np.sin(2 * np.pi * (0.6 * across + 1.6 * grain))
        case Pattern.STRIPES:
            return (across % 1.0 < 0.5).astype(np.float32)
        case Pattern.CHECKS:
            return ((np.floor(across) + np.floor(along)) % 2.0).astype(np.float32)
        case Pattern.CLOUDS:
            return 0.65 * value_noise(scaled) + 0.35 * value_noise(scaled * 3.1)
        case Pattern.TILES:
            return np.maximum(across % 1.0 < 0.05, along % 1.0 < 0.05).astype(np.float32)
        case Pattern.PLANKS:
            board = np.floor(across)
            length = np.floor(along * 0.2 + 0.37 * board)
            shade = _hash(np.stack([board, length, np.zeros_like(board)], axis=1).astype(np.int64))
            seam = (across % 1.0 < 0.06).astype(np.float32)
            return np.clip(0.6 * shade + 0.4 * seam, 0.0, 1.0)
        case Pattern.SPECKLE:
            return _hash(np.floor(scaled).astype(np.int64))
        case Pattern.PAINTING:
            return np.clip(4.0 * (value_noise(scaled) - 0.35), 0.0, 1.0)


def value_noise(position: Float[np.ndarray, "point 3"]) -> Float[np.ndarray, " point"]:
    """Smooth noise 0..1 with one random value per unit cell corner."""
    cell = np.floor(position)
    inside = (position - cell).astype(np.float32)
    inside = inside * inside * (3.0 - 2.0 * inside)
    cell = cell.astype(np.int64)
    value = np.zeros(len(position), dtype=np.float32)
    for corner in np.ndindex(2, 2, 2):
        share = np.where(np.array(corner) == 1, inside, 1.0 - inside).prod(axis=1)
        value += share * _hash(cell + np.array(corner))
    return value


def _hash(cell: Int[np.ndarray, "point 3"]) -> Float[np.ndarray, " point"]:
    """A number 0..1 that depends on three integers alone."""
    key = cell.astype(np.uint32)
    mixed = (
        key[:, 0] * np.uint32(73856093) ^ key[:, 1] * np.uint32(19349663) ^ key[:, 2] * np.uint32(83492791)
    )
    mixed = (mixed ^ (mixed >> np.uint32(15))) * np.uint32(2246822519)
    mixed = (mixed ^ (mixed >> np.uint32(13))) * np.uint32(3266489917)
    return ((mixed ^ (mixed >> np.uint32(16))) >> np.uint32(8)).astype(np.float32) / np.float32(2**24)
