"""The scene store: one folder per scene, written whole or not at all, read without copying.

    ROOT/dataset.yaml
    ROOT/<split>/<scene>/coord.npy color.npy normal.npy segment.npy instance.npy mesh.ply prepared.json
    ROOT/<split>/<scene>/frames/cameras.npz color/<id>.jpg depth/<id>.png semantic/<id>.png

Folders that other programs processed (no dataset.yaml) are read in place: see `processed/`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ponderv2.errors import SceneError
from ponderv2.io.suggestions import similar_path
from ponderv2.io.yaml import DUMPER, plain_values
from ponderv2.scenes.layout import FrameChoice, SceneLayout
from ponderv2.scenes.point_labels import with_ignored
from ponderv2.scenes.prepared import SceneStream
from ponderv2.scenes.reader import DatasetInfo, LabelSet
from ponderv2.scenes.scene import Scene
from ponderv2.store.reader import PREPARED, PreparedScenes
from ponderv2.store.writer import restore_interrupted, write_scene

INFO_FILE = "dataset.yaml"
LARGEST_INFO = 4 * 2**20
"""Bytes of it."""


@dataclass(frozen=True)
class SceneStore:
    """A folder of prepared scenes. Scene names may contain slashes (scene_00000/room_1)."""

    root: Path
    info: DatasetInfo
    layout: SceneLayout = PREPARED
    """How its scenes are stored: in our way or in that of another program."""

    @staticmethod
    def open(root: Path) -> SceneStore:
        """The store in a folder that has at least one scene, prepared here or processed by another program.

        Raises SceneError with what to type.
        """
        root = Path(root)
        if root.is_file():
            raise SceneError(f"{root} is a file, not a folder of scenes", fix=f"--data {root.parent}")
        if not root.is_dir():
            near = similar_path(root, folders_only=True)
            fix = f"--data {near}" if near is not None else f"ponder prepare synthetic --out {root}"
            raise SceneError(f"no folder {root}", fix=fix)
        store = SceneStore(root, _read_info(root)) if (root / INFO_FILE).is_file() else _recognised(root)
        if store is None or not any(store.scene_names(split) for split in store.info.splits):
            raise SceneError(f"no prepared scenes in {root}", fix=f"ponder prepare synthetic --out {root}")
        return store

    @staticmethod
    def create(root: Path, info: DatasetInfo) -> SceneStore:
        """The store in a folder that is made if need be; `info` replaces what was known of it."""
        root = Path(root)
        from ponderv2.io.files import write_bytes

        text = yaml.dump(_plain(asdict(info)), Dumper=DUMPER, sort_keys=False, allow_unicode=True)
        write_bytes(root / INFO_FILE, text.encode())
        return SceneStore(root, info)

    def stored_info(self) -> DatasetInfo:
        """What dataset.yaml says now, which may differ from `info`."""
        return _read_info(self.root)

    def scene_names(self, split: str) -> tuple[str, ...]:
        """Names of the scenes of a split, sorted; empty when the split does not exist.

        `Area_1+Area_2` is both splits, one after the other, the names with their split before them:
        `Area_1/office_1`. Raises SceneError when one of several splits has no scenes.
        """
        parts = split_parts(split)
        if len(parts) == 1:
            return self.layout.scene_names(self.root / parts[0])
        named = {part: self.layout.scene_names(self.root / part) for part in parts}
        for part, names in named.items():
            if not names:
                known = ", ".join(one for one in self.info.splits if self.layout.scene_names(self.root / one))
                raise SceneError(
                    f"{self.root} has no scenes in '{part}' of '{split}'", fix=f"choose of: {known}"
                )
        return tuple(f"{part}/{name}" for part, names in named.items() for name in names)

    def _folder(self, name: str, split: str) -> Path:
        """Where a name of `scene_names(split)` is."""
        parts = split_parts(split)
        return self.root / parts[0] / name if len(parts) == 1 else self.root / name

    def folder(self, name: str, split: str | None = None) -> Path:
        """Folder of a scene; the name may have its split before it. Raises SceneError when there is none.

        Where scenes are files, the name of the file without its ending.
        """
        splits = (split,) if split is not None else self.info.splits
        folders = [self._folder(name, one) for one in splits]
        for folder in folders if split is not None else [*folders, self.root / name]:
            if self.layout.is_scene(folder):
                return folder
        known = sum((self.scene_names(one) for one in self.info.splits), ())
        listed = ", ".join(known[:5]) + (", ..." if len(known) > 5 else "")
        raise SceneError(f"no scene '{name}' in {self.root}", fix=f"choose one of: {listed}")

    def names_with_frames(self, split: str) -> tuple[str, ...]:
        """Names of the scenes of a split that have photographs; all where none has."""
        names = self.scene_names(split)
        return tuple(one for one in names if self.layout.has_frames(self._folder(one, split))) or names

    def read(
        self,
        name: str,
        split: str | None = None,
        labels: bool = True,
        frames: FrameChoice = "all",
    ) -> Scene:
        """A scene; arrays are memory-mapped, pictures read when asked for.

        Without `labels` no file with classes or objects is opened, whether there is one or not.
        """
        return self._with_ignored(self.layout.read(self.folder(name, split), name, labels, frames))[0]

    def _with_ignored(self, scene: Scene) -> tuple[Scene, tuple[str, ...]]:
        """-1 for every point without a label, and what was decided about it."""
        labels, notes = dict(scene.cloud.labels), ()
        for field_name, values in labels.items():
            n_classes = len(self.info.label_set(field_name).class_names) or None
            labels[field_name], more = with_ignored(values, field_name, n_classes)
            notes += more
        return replace(scene, cloud=replace(scene.cloud, labels=labels)), notes

    def _label_notes(self, name: str, split: str) -> tuple[str, ...]:
        return self._with_ignored(self.layout.read(self._folder(name, split), name, True, "none"))[1]

    def mesh_path(self, name: str, split: str | None = None) -> Path | None:
        """The reference mesh of a scene, when there is one."""
        path = self.folder(name, split) / "mesh.ply"
        return path if path.is_file() else None

    def warnings(self, split: str, labels: bool = False) -> tuple[str, ...]:
        """What to know of a folder of another program: what it is, and what its first scene lacks.

        With `labels` those of the first scene are read, and what was decided about them is reported.
        """
        names = self.names_with_frames(split)
        if not names:
            return ()
        found = self._label_notes(names[0], split) if labels else ()
        place = ()
        if not isinstance(self.layout, PreparedScenes):  # not by identity: stores travel to other processes
            found = (*self.layout.notes(self._folder(names[0], split)), *found)
            place = (f"{self.root}: scenes of '{self.info.name}' read in place",)
        return (*place, *(f"{names[0]}: {one}" for one in found))

    def record(self, name: str, split: str) -> dict[str, Any]:
        """What was noted when the scene was prepared (fingerprint, notes, repairs); empty if nothing was.

        Of scenes of other programs: what was guessed, computed or left out in reading. Raises SceneError.
        """
        if not isinstance(self.layout, PreparedScenes):  # not by identity: stores travel to other processes
            notes = self.layout.notes(self._folder(name, split)) + self._label_notes(name, split)
            return {"notes": list(notes)}
        try:
            values = json.loads((self._folder(name, split) / "prepared.json").read_text())
        except (OSError, ValueError, RecursionError):
            return {}
        return values if isinstance(values, dict) else {}

    def restore_interrupted(self, name: str, split: str) -> None:
        """Undo half a replacement: a run that was killed between two renames left the old scene aside."""
        restore_interrupted(self.root / split / name)

    def write(self, split: str, name: str, contents: SceneStream, fingerprint: str = "") -> None:
        """Write a scene, replacing one of that name; after a crash either the old or the new one is there."""
        write_scene(self.root / split / name, contents, fingerprint)


def split_parts(split: str) -> tuple[str, ...]:
    """The splits that `Area_1+Area_2` joins, each once."""
    return tuple(dict.fromkeys(part.strip() for part in split.split("+")))


def _recognised(root: Path) -> SceneStore | None:
    from ponderv2.datasets.recognise import recognise

    found = recognise(root)
    return None if found is None else SceneStore(root, *found)


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
