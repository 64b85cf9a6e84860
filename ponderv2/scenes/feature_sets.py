"""Image features of a folder of scenes: a folder per network, settings and PCA, which are one feature space.

    ROOT/image_features/NAME-SPACE/features.json              network, settings, licence, images of the PCA
    ROOT/image_features/NAME-SPACE/pca.safetensors            mean, components, explained_variance
    ROOT/image_features/NAME-SPACE/SPLIT/SCENE/ID.safetensors [channel, row, column] in half precision

Where ROOT is not ours or cannot be written, the same lies in the cache folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ponderv2.errors import SceneError
from ponderv2.io.files import cache_folder
from ponderv2.scenes.feature_maps import ENDING, FORMAT, FeatureFile
from ponderv2.scenes.folders import split_parts
from ponderv2.scenes.scene import Frame, Scene

FOLDER = "image_features"
ABOUT = "features.json"
PCA = "pca.safetensors"


@dataclass(frozen=True)
class FeatureSet:
    """The features of one space of a folder of scenes. A value that can be pickled."""

    name: str
    """Of its folder."""
    places: tuple[Path, ...]
    """Folders that may hold its files: beside the scenes, in the cache."""
    about: Mapping[str, Any]
    """Content of features.json."""

    @property
    def space(self) -> str:
        """Digest of weights, settings and PCA."""
        return str(self.about["space"])

    def file(self, scene: str, frame: str) -> FeatureFile | None:
        """The file of a frame where it is there. `scene`: with its split, `train/room0001`."""
        for place in self.places:
            path = place / scene / f"{frame}{ENDING}"
            if path.is_file():
                return FeatureFile(path, self.space)
        return None

    def new_file(self, place: Path, scene: str, frame: str) -> FeatureFile:
        """The file of a frame that is to be written."""
        return FeatureFile(place / scene / f"{frame}{ENDING}", self.space)

    def attached(self, scene: Scene, split: str) -> Scene:
        """The scene, its frames with the features that are there."""
        name = scene_path(split, scene.name)

        def with_file(frame: Frame) -> Frame:
            return replace(frame, features=self.file(name, frame.id) if frame.has_color else None)

        return replace(scene, frames=tuple(with_file(frame) for frame in scene.frames))


def scene_path(split: str, name: str) -> str:
    """Split and name; of joined splits (`Area_1+Area_2`) names have theirs already."""
    parts = split_parts(split)
    return f"{parts[0]}/{name}" if len(parts) == 1 else name


def set_folders(root: Path) -> tuple[Path, Path]:
    """Where the feature sets of a folder of scenes may lie: beside them, and in the cache."""
    key = hashlib.sha256(str(root.absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return root / FOLDER, cache_folder() / FOLDER / f"{root.absolute().name}-{key}"


def feature_sets(root: Path) -> tuple[FeatureSet, ...]:
    """All that were begun for a folder of scenes, by name. Damaged ones are left out."""
    places = set_folders(root)
    found: dict[str, FeatureSet] = {}
    for place in places:
        for path in sorted(place.glob(f"*/{ABOUT}")) if place.is_dir() else ():
            name, about = path.parent.name, read_about(path)
            if about is not None and name not in found:
                found[name] = FeatureSet(name, tuple(one / name for one in places), about)
    return tuple(found[name] for name in sorted(found))


def find_features(
    root: Path, identity: Mapping[str, Any], fitted_on: Sequence[str], space: str | None = None
) -> FeatureSet | None:
    """The features of these settings; None where none were begun.

    Args:
        root: Folder of scenes.
        identity: `ImageFeaturesConfig.identity`.
        fitted_on: Names of the data sets whose images the PCA was fitted on; with a `space` any.
        space: The features that are meant, where it is known.
    """
    for one in feature_sets(root):
        meant = one.space == space if space else one.about["fitted_on"] == sorted(fitted_on)
        if meant and one.about["identity"] == dict(identity):
            return one
    return None


def read_basis(basis: Path) -> dict[str, Any]:
    """The content of features.json of a folder that settings name. Raises SceneError where there is none."""
    about = read_about(basis.expanduser() / ABOUT)
    if about is None:
        raise SceneError(
            f"{basis} is no folder of image features: {ABOUT} is missing or damaged",
            fix=f"--set data.image_features.basis=DATA/{FOLDER}/NAME",
        )
    return about


def read_about(path: Path) -> dict[str, Any] | None:
    """The content of features.json; None where it is missing, damaged or of another format."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    known = isinstance(values, dict) and values.get("format") == FORMAT
    shaped = known and isinstance(values.get("identity"), dict) and isinstance(values.get("fitted_on"), list)
    return values if shaped and isinstance(values.get("space"), str) else None


def set_name(model: str, space: str) -> str:
    """Of the folder of a feature set."""
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', model).strip('._') or 'model'}-{space[:10]}"
