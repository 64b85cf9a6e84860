"""Generated streets as a folder of nuScenes v1.0: a street is whole once its records are stored."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ponderv2.datasets.reader import DatasetGenerator, GeneratedSize
from ponderv2.datasets.streets.config import StreetsConfig
from ponderv2.errors import SceneError
from ponderv2.io.files import reported, write_bytes
from ponderv2.synthetic.streets.names import VERSION, plan

GENERATOR_VERSION = 1
"""Raised whenever the same settings give other streets."""
RECORDS = "records"
"""Folder of the records of every street, from which the tables are made."""
SWEEP_BYTES, PIXEL_BYTES, MAP_BYTES = 560_000, 0.45, 120_000
"""On disk: a revolution of 1084 columns, a pixel of an image, the rest of a street."""


@dataclass(frozen=True)
class GeneratedStreet:
    """One street to be generated."""

    index: int
    split: str
    name: str
    config: StreetsConfig

    def fingerprint(self) -> str:
        """The generator, the number of the street and the settings that shape it."""
        settings = self.config.model_dump_json(exclude={"scenes"})
        return hashlib.sha256(f"{GENERATOR_VERSION} {self.index} {settings}".encode()).hexdigest()[:16]

    def estimated_bytes(self) -> int:
        """Sweeps and images."""
        config = self.config
        n_sweeps = config.key_frames * (10 if config.sweeps else 1)
        n_images = config.key_frames * 6 * config.camera_rate // 2
        pixels = n_images * config.width * config.height
        return int(SWEEP_BYTES * n_sweeps * config.columns / 1084 + PIXEL_BYTES * pixels) + MAP_BYTES

    def done(self, root: Path) -> GeneratedSize | None:
        """What is in the folder of an earlier run; None where something is missing.

        Raises:
            SceneError: the street was generated with other settings.
        """
        stored = _stored(root / RECORDS / f"{self.name}.json")
        if stored is None:
            return None
        if stored["fingerprint"] != self.fingerprint():
            raise SceneError(
                f"{root} holds streets that were generated with other settings",
                fix=f"choose another --out, or delete {root}",
            )
        tables = stored["tables"]
        files = [one["filename"] for table in ("sample_data", "lidarseg", "map") for one in tables[table]]
        if not all((root / name).is_file() for name in files):
            return None
        return GeneratedSize(**stored["size"])

    def generate(self, root: Path) -> GeneratedSize:
        """Generate, drive along and record the street. Raises OutputError."""
        from ponderv2.synthetic.streets.recording import Recorder

        found = Recorder(self.index, self.name, self.config, root).run()
        note = f"{found.weather}, {found.metres:.0f} m, {found.n_boxes} boxes"
        size = GeneratedSize(found.n_images, found.n_points, note)
        stored = {"fingerprint": self.fingerprint(), "size": vars(size), "tables": found.records.tables}
        write_bytes(root / RECORDS / f"{self.name}.json", json.dumps(stored).encode())
        return size


def find(config: StreetsConfig) -> DatasetGenerator:
    """Plan the streets. Raises SceneError for more of them than nuScenes has names."""
    try:
        names = plan(config.scenes, config.val_every)
    except ValueError as error:
        raise SceneError(str(error), fix="--scenes 500") from error
    scenes = tuple(GeneratedStreet(index, split, name, config) for index, (split, name) in enumerate(names))
    note = f"{config.scenes} generated streets, seed {config.seed}, as nuScenes {VERSION}"
    return DatasetGenerator(scenes, check_folder, finish, (note,))


def check_folder(root: Path) -> None:
    """Raises SceneError for a folder with tables that were not generated here: they would be replaced."""
    if any(root.glob("v1.0-*/*.json")) and not any((root / RECORDS).glob("*.json")):
        raise SceneError(f"{root} holds a data set that was not generated", fix="choose another --out")


def finish(root: Path) -> None:
    """Write the tables of all streets that are whole, of earlier runs too. Raises OutputError."""
    from ponderv2.synthetic.streets.tables import write_tables

    found = [_stored(path) for path in sorted((root / RECORDS).glob("scene-*.json"))]
    scenes = [one["tables"] for one in found if one is not None]
    named = {Path(record["filename"]).name for scene in scenes for record in scene["lidarseg"]}
    folder = root / "lidarseg" / VERSION
    with reported(folder):
        for path in folder.glob(
            "*_lidarseg.bin"
        ):  # of streets that were interrupted; the devkit counts files
            if path.name not in named:
                path.unlink(missing_ok=True)
    write_tables(root, scenes)


def _stored(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
        return (
            found if isinstance(found, dict) and {"fingerprint", "size", "tables"} <= found.keys() else None
        )
    except (OSError, ValueError):
        return None
