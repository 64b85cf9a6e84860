"""The scene store: one folder per scene, written whole or not at all, read without copying.

    ROOT/dataset.yaml
    ROOT/<split>/<scene>/coord.npy color.npy normal.npy segment.npy instance.npy intensity.npy mesh.ply
    ROOT/<split>/<scene>/frames/cameras.npz color/<id>.jpg depth/<id>.png semantic/<id>.png mask/<id>.png
    ROOT/<split>/<scene>/sweeps/sweeps.npz <id>.npz
    ROOT/<split>/<scene>/boxes.npz prepared.json

Folders that other programs processed have no dataset.yaml and are read by `datasets/`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from ponderv2.errors import SceneError
from ponderv2.io.files import write_bytes
from ponderv2.io.suggestions import similar_path
from ponderv2.io.yaml import DUMPER, plain_values
from ponderv2.scenes.array_folders import PREPARED
from ponderv2.scenes.folders import SceneFolders, SceneLayout
from ponderv2.scenes.prepared import SceneStream
from ponderv2.scenes.reader import INFO_FILE, DatasetInfo, LabelSet
from ponderv2.store.writer import restore_interrupted, write_scene

LARGEST_INFO = 4 * 2**20
"""Bytes of it."""


@dataclass(frozen=True)
class SceneStore(SceneFolders):
    """A folder of scenes that `ponder prepare` wrote, and the way to write more."""

    layout: SceneLayout = PREPARED

    @staticmethod
    def open(root: Path) -> SceneStore:
        """The store in a folder that has at least one scene. Raises SceneError with what to type."""
        root = Path(root)
        if root.is_file():
            raise SceneError(f"{root} is a file, not a folder of scenes", fix=f"--data {root.parent}")
        if not root.is_dir():
            near = similar_path(root, folders_only=True)
            fix = f"--data {near}" if near is not None else f"ponder prepare synthetic --out {root}"
            raise SceneError(f"no folder {root}", fix=fix)
        store = SceneStore(root, _read_info(root)) if is_store(root) else None
        if store is None or not any(store.names(split) for split in store.info.splits):
            raise SceneError(f"no prepared scenes in {root}", fix=f"ponder prepare synthetic --out {root}")
        return store

    @staticmethod
    def create(root: Path, info: DatasetInfo) -> SceneStore:
        """The store in a folder that is made if need be; `info` replaces what was known of it."""
        root = Path(root)
        text = yaml.dump(_plain(asdict(info)), Dumper=DUMPER, sort_keys=False, allow_unicode=True)
        write_bytes(root / INFO_FILE, text.encode())
        return SceneStore(root, info)

    def stored_info(self) -> DatasetInfo:
        """What dataset.yaml says now, which may differ from `info`."""
        return _read_info(self.root)

    def _provenance(self) -> tuple[str, ...]:
        return ()

    def record(self, name: str, split: str) -> dict[str, Any]:
        """What was noted when the scene was prepared (fingerprint, notes, repairs); empty if nothing was."""
        try:
            values = json.loads((self._location(name, split) / "prepared.json").read_text())
        except (OSError, ValueError, RecursionError):
            return {}
        return values if isinstance(values, dict) else {}

    def restore_interrupted(self, name: str, split: str) -> None:
        """Undo half a replacement: a run that was killed between two renames left the old scene aside."""
        restore_interrupted(self.root / split / name)

    def write(self, split: str, name: str, contents: SceneStream, fingerprint: str = "") -> None:
        """Write a scene, replacing one of that name; after a crash either the old or the new one is there."""
        write_scene(self.root / split / name, contents, fingerprint, self.info.box_classes)


def is_store(root: Path) -> bool:
    """Whether a folder was written by `ponder prepare`."""
    return (root / INFO_FILE).is_file()


def _read_info(root: Path) -> DatasetInfo:
    path = root / INFO_FILE
    try:
        if path.stat().st_size > LARGEST_INFO:
            raise SceneError(f"{path} is larger than {LARGEST_INFO // 2**20} MB, which no list of classes is")
        values = plain_values(path.read_text(encoding="utf-8"), most_events=200_000)[0]
        main = _label_set(values)
        return DatasetInfo(
            name=str(values["name"]),
            class_names=main.class_names,
            class_colors=main.class_colors,
            label_field=str(values.get("label_field", "segment")),
            other_labels={str(key): _label_set(one) for key, one in values.get("other_labels", {}).items()},
            splits=tuple(str(split) for split in values["splits"]),
            version=str(values.get("version", "")),
            box_classes=tuple(str(name) for name in values.get("box_classes", ())),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise SceneError(f"{path} is damaged ({error})", fix="prepare the scenes again") from error


def _label_set(values: Mapping[str, Any]) -> LabelSet:
    colors = tuple((int(r), int(g), int(b)) for r, g, b in values.get("class_colors", ()))
    return LabelSet(tuple(str(name) for name in values.get("class_names", ())), colors)


def _plain(value: Any) -> Any:
    """Lists for tuples, which is what YAML knows."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
