"""Generated rooms as three datasets: other rooms, another look, other classes.

Run: python -m experiments.joint_datasets --rooms data/rooms --out data/joint_rooms

The rooms of `ponder prepare rooms` are written as three folders of scenes, which the presets `rooms_joint` of
pre-training and fine-tuning expect. Training rooms are shared out; validation and test rooms are the same for
all, each seen by its own sensor.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from zlib import crc32

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from ponderv2.scenes.prepared import DecodedFrame, PreparedCloud, SceneStream
from ponderv2.scenes.scene import Scene
from ponderv2.store.store import SceneStore
from ponderv2.synthetic.classes import CLASS_NAMES


@dataclass(frozen=True)
class Look:
    """What a sensor does to what it sees."""

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Of red, green and blue."""
    contrast: float = 1.0
    color_noise: float = 0.0
    """Deviation per point and pixel, as a share of 255."""
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
    """Of the dataset and of its folder."""
    ratio: int
    """Its share of the training rooms, and of the steps of the presets."""
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
    Variant("rooms_a", 4, Look()),
    Variant(
        "rooms_b",
        2,
        Look(gain=(1.15, 0.95, 0.7), contrast=0.7, color_noise=0.04, depth_noise=0.01, kept=0.6),
        {
            **{name: "seat" for name in ("chair", "sofa")},
            **{name: "surface" for name in ("table", "desk")},
            **{name: "storage" for name in ("cabinet", "bookshelf")},
            **{name: "clutter" for name in _SMALL},
        },
    ),
    Variant(
        "rooms_c",
        1,
        Look(gain=(0.75, 0.95, 1.2), contrast=1.3, color_noise=0.015, coord_noise=0.015, kept=0.8),
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
    """The place in the vocabulary of each label of a dataset: `valid_index` of the preset."""
    return tuple(VOCABULARY.index(name) for name in variant.class_names)


def as_seen(scene: Scene, variant: Variant, label_field: str) -> SceneStream:
    """A room as the dataset shows and labels it; the same every time."""
    rng = np.random.default_rng([crc32(variant.name.encode()), crc32(scene.name.encode())])
    cloud, look = PreparedCloud.of(scene.cloud), variant.look
    kept = rng.random(len(cloud.coord)) < look.kept
    assert cloud.color is not None
    seen = PreparedCloud(
        (cloud.coord + look.coord_noise * rng.standard_normal(cloud.coord.shape)).astype(np.float32)[kept],
        _tinted(rng, cloud.color, look)[kept],
        cloud.normal[kept],
        {
            name: (_relabelled(values, variant) if name == label_field else values)[kept]
            for name, values in cloud.labels.items()
        },
    )
    frames = (_frame(rng, DecodedFrame.of(frame), variant) for frame in scene.frames)
    return SceneStream.of(seen, frames)


def _frame(rng: np.random.Generator, frame: DecodedFrame, variant: Variant) -> DecodedFrame:
    assert frame.color is not None and frame.depth is not None and frame.semantic is not None
    metres = frame.depth * frame.depth_scale
    error = variant.look.depth_noise * rng.standard_normal(metres.shape) * metres**2
    depth = np.rint(np.clip(metres + error, 0.05, 60.0) / frame.depth_scale)
    return replace(
        frame,
        color=_tinted(rng, frame.color, variant.look),
        color_file=None,
        depth=np.where(frame.depth > 0, depth, 0).astype(np.uint16),
        semantic=_relabelled(frame.semantic, variant),
    )


def _tinted(
    rng: np.random.Generator, color: UInt8[ndarray, "*place 3"], look: Look
) -> UInt8[ndarray, "*place 3"]:
    """Another white balance, contrast about the middle, and noise."""
    value: Float[ndarray, "*place 3"] = color / 127.5 * np.array(look.gain) - 1.0
    value = value * look.contrast + 2.0 * look.color_noise * rng.standard_normal(color.shape)
    return np.rint((np.clip(value, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)


def _relabelled(segment: Int[ndarray, "*place"], variant: Variant) -> Int[ndarray, "*place"]:
    names = [variant.renamed.get(name, name) for name in CLASS_NAMES]
    table = np.array([variant.class_names.index(name) if name else -1 for name in names] + [-1])
    return table[segment]  # -1 is the last entry


def write_datasets(rooms: Path, out: Path) -> None:
    """Writes the three folders; a dataset that is complete is left as it is."""
    store = SceneStore.open(rooms)
    train, first = store.names("train"), 0
    shares = sum(variant.ratio for variant in VARIANTS)
    for variant in VARIANTS:
        last = first + len(train) * variant.ratio // shares
        wanted = {"train": train[first:last], "val": store.names("val"), "test": store.names("test")}
        first = last
        info = replace(
            store.info,
            name=variant.name,
            class_names=variant.class_names,
            class_colors=(),
            splits=tuple(wanted),
        )
        target = SceneStore.create(out / variant.name, info)
        for split, names in wanted.items():
            there = set(target.names(split))
            for name in names:
                if name not in there:
                    scene = store.read(name, split)
                    target.write(split, name, as_seen(scene, variant, store.info.label_field))
        print(f"{target.root}: " + ", ".join(f"{len(names)} {split}" for split, names in wanted.items()))


def main() -> None:
    """Writes the three datasets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rooms", type=Path, default=Path("data/rooms"), help="from `ponder prepare rooms`")
    parser.add_argument("--out", type=Path, default=Path("data/joint_rooms"))
    arguments = parser.parse_args()
    write_datasets(arguments.rooms, arguments.out)


if __name__ == "__main__":
    main()
