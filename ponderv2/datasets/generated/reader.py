"""Generated rooms as a source of scenes: a scene per room, a function of seed, number and settings."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from ponderv2.datasets.generated.config import SyntheticConfig
from ponderv2.datasets.reader import DatasetReader
from ponderv2.scenes.prepared import PreparedScene, SceneStream
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.synthetic.classes import BOX_CLASSES, CLASS_COLORS, CLASS_NAMES

GENERATOR_VERSION = 2
"""Raised whenever the same settings give other rooms, so that stored ones are regenerated."""

PIXEL_BYTES, POINT_BYTES, MESH_BYTES = 1.8, 33, 300_000
"""On disk: colour, depth and class of a pixel; the arrays of a point; the mesh of a room."""
SURFACE = 4.5
"""Scanned surface per floor area."""


@dataclass(frozen=True)
class GeneratedRoom:
    """One room to be generated."""

    index: int
    split: str
    config: SyntheticConfig

    @property
    def name(self) -> str:
        """Name of the scene."""
        return f"room{self.index:04d}"

    def fingerprint(self) -> str:
        """The generator, the number of the room and the settings that shape it."""
        settings = self.config.model_dump_json(exclude={"rooms", "val_rooms", "test_rooms"})
        return hashlib.sha256(f"{GENERATOR_VERSION} {self.index} {settings}".encode()).hexdigest()[:16]

    def estimated_bytes(self) -> int:
        """Images, points and mesh, by the size of rooms that were prepared."""
        pixels = self.config.frames * self.config.width * self.config.height
        floor = self.config.room_size[0] * self.config.room_size[1]
        return int(PIXEL_BYTES * pixels + SURFACE * floor / self.config.voxel**2 * POINT_BYTES) + MESH_BYTES

    def read(self) -> SceneStream:
        """Generate, render and scan the room."""
        from ponderv2.synthetic.boxes import furniture_boxes
        from ponderv2.synthetic.rendering import RoomRenderer
        from ponderv2.synthetic.room import make_room
        from ponderv2.synthetic.scan import scan_room

        rng = np.random.default_rng([self.config.seed, self.index])
        room = make_room(rng, self.config)
        scan = scan_room(rng, RoomRenderer(room), self.config)
        note = f"{len(room.things)} things on {room.plan.area():.0f} square metres"
        boxes = furniture_boxes(room, scan.cloud.labels["instance"])
        made = PreparedScene(scan.cloud, scan.mesh, (note,), boxes=boxes)
        return SceneStream(scan.frames, lambda: made)


def find(config: SyntheticConfig) -> DatasetReader:
    """Plan the rooms: the last for validation, those before for the test, the others for training."""
    n_train = config.rooms - config.n_val_rooms - config.test_rooms
    sizes = (("train", n_train), ("test", config.test_rooms), ("val", config.n_val_rooms))
    splits = [split for split, size in sizes for _ in range(size)]
    scenes = tuple(GeneratedRoom(index, split, config) for index, split in enumerate(splits))
    info = DatasetInfo(
        name="synthetic",
        class_names=CLASS_NAMES,
        class_colors=CLASS_COLORS,
        label_field="segment",
        splits=tuple(split for split in ("train", "val", "test") if split in splits),
        box_classes=BOX_CLASSES,
    )
    return DatasetReader(info, scenes, (f"{config.rooms} generated rooms, seed {config.seed}",))
