"""Generated rooms as three datasets: other rooms, another look, other classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from experiments.gain_rooms import Room, read_rooms, surface_points
from ponderv2.store.store import SceneStore
from ponderv2.synthetic.classes import CLASS_NAMES


@dataclass(frozen=True)
class Look:
    """What a sensor does to what it sees."""

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Of red, green and blue."""
    contrast: float = 1.0
    color_noise: float = 0.0
    """Deviation per point and pixel; colours span -1..1."""
    depth_noise: float = 0.0
    """Deviation at one metre, metres; grows with the square of the depth."""
    coord_noise: float = 0.0
    """Deviation of the points, metres."""
    kept: float = 1.0
    """Share of the points that the scan holds."""


@dataclass(frozen=True)
class Variant:
    """One of the three datasets."""

    name: str
    ratio: int
    """Consecutive steps in a joint run; also its share of the training rooms."""
    look: Look
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Classes that are called otherwise, several perhaps alike; an empty name: not labelled."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the labels."""
        names = (self.renamed.get(name, name) for name in CLASS_NAMES)
        return tuple(dict.fromkeys(name for name in names if name))


_SMALL = ("picture", "lamp", "plant", "television", "otherprop", "curtain")
VARIANTS = (
    Variant("A", 4, Look()),
    Variant(
        "B",
        2,
        Look(gain=(1.15, 0.95, 0.7), contrast=0.7, color_noise=0.08, depth_noise=0.01, kept=0.6),
        {
            **{name: "seat" for name in ("chair", "sofa")},
            **{name: "surface" for name in ("table", "desk")},
            **{name: "storage" for name in ("cabinet", "bookshelf")},
            **{name: "clutter" for name in _SMALL},
        },
    ),
    Variant(
        "C",
        1,
        Look(gain=(0.75, 0.95, 1.2), contrast=1.3, color_noise=0.03, coord_noise=0.015, kept=0.8),
        {"ceiling": "", "desk": "table", **{name: "" for name in _SMALL}},
    ),
)
"""A: all classes. B: warm, flat, noisy colours and depths, merged classes under other names. C: cold colours,
shaky points, the larger classes only."""

VOCABULARY: tuple[str, ...] = tuple(
    dict.fromkeys(name for variant in VARIANTS for name in variant.class_names)
)
"""All names; the same name is the same text."""


def rows_of(variant: Variant) -> tuple[int, ...]:
    """The place in the vocabulary of each label of a dataset."""
    return tuple(VOCABULARY.index(name) for name in variant.class_names)


def as_seen(room: Room, variant: Variant, seed: int = 0) -> Room:
    """A room as the dataset shows and labels it; the same every time."""
    look = variant.look
    number = int.from_bytes(f"{variant.name}{room.name}".encode(), "big") % (2**62) + seed
    generator = torch.Generator().manual_seed(number)

    def noise(shape: torch.Size, deviation: float) -> torch.Tensor:
        return deviation * torch.randn(shape, generator=generator)

    gain = torch.tensor(look.gain)
    color = ((room.color + 1) * gain - 1) * look.contrast + noise(room.color.shape, look.color_noise)
    pixel_color = ((room.pixel_color * 2 * gain - 1) * look.contrast + 1) / 2
    depth = room.depth + noise(room.depth.shape, look.depth_noise) * room.depth.square()
    cameras = (room.intrinsics[room.view], room.world_to_camera[room.view])
    kept = torch.rand(len(room.coord), generator=generator) < look.kept
    return replace(
        room,
        coord=(room.coord + noise(room.coord.shape, look.coord_noise))[kept],
        color=color.clamp(-1, 1)[kept],
        normal=room.normal[kept],
        segment=_relabelled(room.segment, variant)[kept],
        pixel_color=pixel_color.clamp(0, 1),
        depth=depth.clamp(min=0.05),
        hit=surface_points(room.pixel, depth, *cameras),
    )


def _relabelled(segment: torch.Tensor, variant: Variant) -> torch.Tensor:
    names = [variant.renamed.get(name, name) for name in CLASS_NAMES]
    table = torch.tensor([variant.class_names.index(name) if name else -1 for name in names] + [-1])
    return table[segment]  # -1 is the last entry


@dataclass(frozen=True)
class Split:
    """The rooms of one dataset."""

    train: list[Room]
    test: list[Room]


def read_datasets(store: SceneStore, n_rooms: int, n_test: int, n_pixels: int) -> dict[str, Split]:
    """Training rooms shared out by the ratios; every dataset has its own view of the same test rooms."""
    rooms = read_rooms(store, "train", n_rooms, n_pixels)
    test = read_rooms(store, "val", n_test, 20)
    shares = sum(variant.ratio for variant in VARIANTS)
    first, found = 0, {}
    for variant in VARIANTS:
        last = first + len(rooms) * variant.ratio // shares
        found[variant.name] = Split(
            [as_seen(room, variant) for room in rooms[first:last]], [as_seen(room, variant) for room in test]
        )
        first = last
    return found
