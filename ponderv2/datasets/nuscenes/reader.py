"""nuScenes as a source of scenes, prepared or read in place: a scene per key frame."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from ponderv2.datasets.nuscenes.classes import CLASS_NAMES, COLORS, DETECTION_NAMES
from ponderv2.datasets.nuscenes.config import NuscenesConfig
from ponderv2.datasets.nuscenes.index import NuscenesIndex, Sample
from ponderv2.datasets.nuscenes.scenes import LIDAR, read_key_frame
from ponderv2.datasets.nuscenes.splits import splits_of
from ponderv2.datasets.reader import DatasetReader, fingerprint
from ponderv2.errors import SceneError
from ponderv2.scenes.prepared import DecodedFrame, PreparedCloud, PreparedScene, SceneStream
from ponderv2.scenes.reader import DatasetInfo, FrameChoice
from ponderv2.scenes.scene import Scene

READER_VERSION = 1
"""Raised whenever the same tables and files give other scenes, so that stored ones are regenerated."""
EXPECTED = "expected v1.0-trainval/sample_data.json (or v1.0-mini, v1.0-test) beside samples/ and sweeps/"
POINT_BYTES, POINTS, IMAGE_BYTES = 36, 34_700, 160_000
"""Rough numbers of a sweep and an image, for the estimate of disk space."""
LISTED = 3
"""Missing files that are named."""


@dataclass(frozen=True)
class Version:
    """One folder of tables with its index."""

    tables: Path
    index: NuscenesIndex

    def splits(self) -> dict[str, frozenset[str]]:
        """Names of the scenes that are there, by split, those of the data set first."""
        there = frozenset(self.index.scenes)
        return {split: names & there for split, names in splits_of(self.tables).items() if names & there}


@dataclass(frozen=True)
class NuscenesKeyFrame:
    """One key frame."""

    split: str
    root: Path
    version: Version
    sample: Sample
    config: NuscenesConfig

    @property
    def name(self) -> str:
        """Drive, number and token."""
        return self.sample.name

    def fingerprint(self) -> str:
        """Settings, what the tables say of this key frame, and contents of its files."""
        index, sample = self.version.index, self.sample
        data = index.key_data(sample)
        chosen = [one for name, one in data.items() if name in (LIDAR, *self.config.cameras)]
        if LIDAR in data:
            chosen += index.before(data[LIDAR], sample, max(self.config.sweeps - 1, 0))
            chosen += index.after(data[LIDAR], sample, self.config.following)
        files = [one.filename for one in chosen]
        labels = index.label_file(data[LIDAR].token) if LIDAR in data else None
        paths = [self.root / one for one in (*files, *((labels,) if labels else ()))]
        settings = self.config.model_dump_json(exclude={"path", "scenes", "every", "version"})
        listed = f"{chosen} {index.annotations(sample)} {index.label_categories}"
        return fingerprint(self.root, paths, f"nuScenes {READER_VERSION}", settings, listed)

    def estimated_bytes(self) -> int:
        """Of the prepared scene: a copy of each sweep, the points with normals, and the images."""
        sweeps = self.config.sweeps + self.config.following + 1
        return POINT_BYTES * POINTS * sweeps + IMAGE_BYTES * len(self.config.cameras)

    def read(self) -> SceneStream:
        """The key frame with its sweeps. Raises SceneError."""
        found = read_key_frame(self.root, self.version.index, self.sample, self.config)
        scene = found.scene

        def finish() -> PreparedScene:
            return PreparedScene(
                PreparedCloud.of(scene.cloud), notes=found.notes, sweeps=scene.sweeps, boxes=scene.boxes
            )

        return SceneStream(map(DecodedFrame.of, scene.frames), finish)


@dataclass(frozen=True)
class NuscenesInPlace:
    """Key frames read where they are. A location is ROOT/SPLIT/scene-0061/003_TOKEN; no file is there."""

    root: Path
    """As it was given; locations begin with it."""
    data: Path
    """Folder of samples/ and sweeps/."""
    versions: tuple[Version, ...]
    config: NuscenesConfig

    def scene_names(self, folder: Path) -> tuple[str, ...]:
        """Names of the key frames of a split, drive by drive in the order of time."""
        return tuple(one.name for _, one in samples_of(self.versions, folder.name, self.config))

    def is_scene(self, location: Path) -> bool:
        """Whether there is such a key frame in the split."""
        return self._find(location) is not None

    def has_frames(self, location: Path) -> bool:
        """Whether there are cameras."""
        return bool(self.config.cameras) and any(one.index.has_cameras for one in self.versions)

    def read(self, location: Path, name: str, labels: bool, frames: FrameChoice) -> Scene:
        """A key frame; images and sweeps are read when asked for. Raises SceneError."""
        version, sample = self._found(location)
        scene = read_key_frame(self.data, version.index, sample, self.config, labels).scene
        return replace(scene, name=name, frames=() if frames == "none" else scene.frames)

    def notes(self, location: Path) -> tuple[str, ...]:
        """What was left out of the tables and of this key frame."""
        version, sample = self._found(location)
        found = read_key_frame(self.data, version.index, sample, self.config, False)
        return (*version.index.problems, *found.notes)

    def _found(self, location: Path) -> tuple[Version, Sample]:
        found = self._find(location)
        if found is None:
            raise SceneError(f"no key frame {location}")
        return found

    def _find(self, location: Path) -> tuple[Version, Sample] | None:
        try:
            split, scene, last = location.relative_to(self.root).parts
            number = int(last.split("_")[0])
        except ValueError:
            return None
        for version in self.versions:
            if scene in _splits(version).get(split, frozenset()):
                sample = version.index.sample(scene, number)
                if sample is not None and sample.name == f"{scene}/{last}":
                    return version, sample
        return None


def find(config: NuscenesConfig) -> DatasetReader:
    """All key frames, and what is missing of their files. Raises SceneError when there are none."""
    data, versions = open_versions(config)
    splits = _splits_of(versions)
    scenes = tuple(
        NuscenesKeyFrame(split, data, version, sample, config)
        for split in splits
        for version, sample in samples_of(versions, split, config)
    )
    if not scenes:
        raise SceneError(
            f"no key frames in {config.path} of the scenes {', '.join(config.scenes) or 'of a split'}"
        )
    names = ", ".join(one.tables.name for one in versions)
    drives = len({one.sample.scene for one in scenes})
    notes = (
        f"{len(scenes)} key frames of {drives} drives in {data} ({names})",
        "each in the frame of its LiDAR: x right, y forward, z up",
    )
    warnings = tuple(
        f"{version.tables}: {problem}" for version in versions for problem in version.index.problems
    )
    warnings += missing_files(data, versions, {one.sample.scene for one in scenes})
    return DatasetReader(_info(splits), scenes, notes, warnings, root=config.path)


def in_place(config: NuscenesConfig) -> tuple[DatasetInfo, NuscenesInPlace]:
    """How the folder is read without preparing it. Raises SceneError for tables that cannot be used."""
    data, versions = open_versions(config)
    splits = _splits_of(versions)
    if not splits:
        raise SceneError(f"no drive in {config.path} is in a split", fix=EXPECTED)
    return _info(splits), NuscenesInPlace(Path(config.path), data, versions, config)


def open_versions(config: NuscenesConfig) -> tuple[Path, tuple[Version, ...]]:
    """Folder of samples/, and the chosen versions. Raises SceneError where there is none."""
    root = Path(config.path)
    if (root / "sample_data.json").is_file():
        return root.absolute().parent, (Version(root, NuscenesIndex.of(root)),)
    there = {one.name: one for one in sorted(root.glob("v1.0-*")) if (one / "sample_data.json").is_file()}
    if config.version and config.version not in there:
        listed = ", ".join(there) or EXPECTED
        raise SceneError(f"no tables {config.version}/sample_data.json in {root}", fix=f"there: {listed}")
    full = [one for one in ("v1.0-trainval", "v1.0-test") if one in there]
    names = [config.version] if config.version else full or list(there)
    if not names:
        raise SceneError(f"no tables of nuScenes in {root}", fix=EXPECTED)
    if len(names) > 1 and not full:
        raise SceneError(f"several versions of nuScenes in {root}", fix=f"--version {names[0]}")
    return root, tuple(Version(there[name], NuscenesIndex.of(there[name])) for name in names)


def samples_of(
    versions: tuple[Version, ...], split: str, config: NuscenesConfig
) -> list[tuple[Version, Sample]]:
    """Key frames of a split, drive by drive in the order of time."""
    found: list[tuple[Version, Sample]] = []
    for version in versions:
        scenes = _splits(version).get(split, frozenset())
        if config.scenes:
            scenes = frozenset(
                name for name in scenes if any(fnmatch.fnmatch(name, one) for one in config.scenes)
            )
        found += [(version, sample) for sample in version.index.samples(scenes)]
    if config.every > 1:
        kept = {id(pair[1]) for pair in sorted(found, key=lambda one: one[1].timestamp)[:: config.every]}
        found = [pair for pair in found if id(pair[1]) in kept]
    return found


def missing_files(data: Path, versions: tuple[Version, ...], scenes: set[str]) -> tuple[str, ...]:
    """Files of the key frames that are not there, counted by sensor."""
    there: dict[str, set[str]] = {}
    lost: dict[str, list[str]] = {}
    total: dict[str, int] = {}
    for version in versions:
        for scene, channel, file in version.index.files():
            if scene not in scenes:
                continue
            folder, _, name = file.rpartition("/")
            total[channel] = total.get(channel, 0) + 1
            if folder not in there:
                there[folder] = _names(data / folder)
            if name not in there[folder]:
                lost.setdefault(channel, []).append(file)
    return tuple(
        f"{len(files)} of {total[channel]} files of {channel} are missing: {', '.join(files[:LISTED])}"
        f"{', ...' if len(files) > LISTED else ''}; "
        + ("their key frames are left out" if channel == LIDAR else "such frames are left out")
        for channel, files in sorted(lost.items())
    )


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


@cache
def _splits(version: Version) -> Mapping[str, frozenset[str]]:
    return version.splits()


def _splits_of(versions: tuple[Version, ...]) -> tuple[str, ...]:
    """Splits that share no scene: train, val, test, or those of one's own list."""
    found: list[str] = []
    taken: set[str] = set()
    for version in versions:
        for split, names in _splits(version).items():
            if not names & taken:
                found.append(split)
                taken |= names
    return tuple(found)


def _info(splits: tuple[str, ...]) -> DatasetInfo:
    return DatasetInfo(
        name="nuScenes",
        class_names=CLASS_NAMES,
        class_colors=COLORS,
        label_field="segment",
        splits=splits,
        box_classes=DETECTION_NAMES,
    )
