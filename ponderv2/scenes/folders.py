"""Scenes in folders ROOT/SPLIT/SCENE of any layout, as an implementation of `reader.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ponderv2.errors import SceneError
from ponderv2.scenes.point_arrays import with_ignored
from ponderv2.scenes.reader import DatasetInfo, FrameChoice, LabelSet
from ponderv2.scenes.scene import Scene


@runtime_checkable
class SceneLayout(Protocol):
    """How a scene is stored; can be pickled. A location is ROOT/SPLIT/SCENE, without a file ending."""

    def scene_names(self, folder: Path) -> tuple[str, ...]:
        """Names of the scenes of a split, sorted, without looking into them."""
        ...

    def is_scene(self, location: Path) -> bool:
        """Whether there is a scene."""
        ...

    def has_frames(self, location: Path) -> bool:
        """Whether the scene has frames, as far as file names tell."""
        ...

    def read(self, location: Path, name: str, labels: bool, frames: FrameChoice) -> Scene:
        """A scene; without `labels` none are opened. Raises SceneError."""
        ...

    def notes(self, location: Path) -> tuple[str, ...]:
        """What was guessed, computed or left out in reading a scene."""
        ...


@dataclass(frozen=True)
class SceneFolders:
    """A folder of scenes, read in place. Scene names may contain slashes (scene_00000/room_1)."""

    root: Path
    info: DatasetInfo
    layout: SceneLayout

    @property
    def label_sets(self) -> Mapping[str, LabelSet]:
        """The classes of every label array."""
        return self.info.label_sets

    def names(self, split: str, with_frames: bool = False) -> tuple[str, ...]:
        """Names of the scenes of a split, sorted; empty when the split does not exist.

        `Area_1+Area_2` is both splits, one after the other, the names with their split before them:
        `Area_1/office_1`. With `with_frames` those that have frames; all where none has any. Raises
        SceneError when one of several splits has no scenes.
        """
        names = self._all_names(split)
        if not with_frames:
            return names
        return tuple(one for one in names if self.layout.has_frames(self._location(one, split))) or names

    def _all_names(self, split: str) -> tuple[str, ...]:
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

    def _location(self, name: str, split: str) -> Path:
        """Where a name of `names(split)` is."""
        parts = split_parts(split)
        return self.root / parts[0] / name if len(parts) == 1 else self.root / name

    def folder(self, name: str, split: str | None = None) -> Path:
        """Folder of a scene; the name may have its split before it. Raises SceneError when there is none.

        Where scenes are files, the name of the file without its ending.
        """
        folder = self._found(name, split)
        if folder is None:
            known = sum((self.names(one) for one in self.info.splits), ())
            raise SceneError(f"no scene '{name}' in {self.root}", fix=f"choose one of: {_listed(known)}")
        return folder

    def _found(self, name: str, split: str | None) -> Path | None:
        splits = (split,) if split is not None else self.info.splits
        folders = [self._location(name, one) for one in splits]
        folders += [self.root / name] if split is None else []
        return next((folder for folder in folders if self.layout.is_scene(folder)), None)

    def full_name(self, name: str, split: str | None = None) -> str:
        """The name of a scene whose name may be given without the token of its key frame.

        `scene-0003/000` is short for `scene-0003/000_TOKEN`, where no other scene (of the split) begins so.
        Exact names win. Raises SceneError where there is no such scene, or more than one.
        """
        if self._found(name, split) is not None:
            return name
        splits = (split,) if split is not None else self.info.splits
        before = [(one, "") for one in splits] + ([] if split else [(one, f"{one}/") for one in splits])
        names = (f"{prefix}{known}" for one, prefix in before for known in self.names(one))
        matching = [one for one in dict.fromkeys(names) if "/" in name and one.startswith(f"{name}_")]
        if len(matching) > 1:
            raise SceneError(
                f"'{name}' is short for {len(matching)} scenes in {self.root}",
                fix=f"choose one of: {_listed(matching)}",
            )
        if not matching:
            self.folder(name, split)  # which says what there is
        return matching[0]

    def read(
        self, name: str, split: str | None = None, labels: bool = True, frames: FrameChoice = "all"
    ) -> Scene:
        """A scene; arrays are memory-mapped, images and sweeps read when asked for.

        Without `labels` no file of labels or boxes is opened, whether there is one or not.
        """
        return self._with_ignored(self.layout.read(self.folder(name, split), name, labels, frames))[0]

    def _with_ignored(self, scene: Scene) -> tuple[Scene, tuple[str, ...]]:
        """-1 for every point without a label, and what was decided about it."""
        labels, notes = dict(scene.cloud.labels), ()
        for label_field, values in labels.items():
            n_classes = len(self.info.label_set(label_field).class_names) or None
            labels[label_field], more = with_ignored(values, label_field, n_classes)
            notes += more
        return replace(scene, cloud=replace(scene.cloud, labels=labels)), notes

    def _label_notes(self, name: str, split: str) -> tuple[str, ...]:
        return self._with_ignored(self.layout.read(self._location(name, split), name, True, "none"))[1]

    def mesh_path(self, name: str, split: str | None = None) -> Path | None:
        """The reference mesh of a scene, when there is one."""
        path = self.folder(name, split) / "mesh.ply"
        return path if path.is_file() else None

    def warnings(self, split: str, labels: bool = False) -> tuple[str, ...]:
        """What the folder is, and what its first scene lacks or was guessed of it.

        With `labels` those of the first scene are read, and what was decided about them is reported.
        """
        names = self.names(split, with_frames=True)
        if not names:
            return ()
        notes = self.layout.notes(self._location(names[0], split))
        notes += self._label_notes(names[0], split) if labels else ()
        return (*self._provenance(), *(f"{names[0]}: {one}" for one in notes))

    def _provenance(self) -> tuple[str, ...]:
        return (f"{self.root}: scenes of '{self.info.name}' read in place",)

    def record(self, name: str, split: str) -> dict[str, Any]:
        """What was guessed, computed or left out in reading a scene, as `notes`. Raises SceneError."""
        return {"notes": [*self.layout.notes(self._location(name, split)), *self._label_notes(name, split)]}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def split_parts(split: str) -> tuple[str, ...]:
    """The splits that `Area_1+Area_2` joins, each once."""
    return tuple(dict.fromkeys(part.strip() for part in split.split("+")))
