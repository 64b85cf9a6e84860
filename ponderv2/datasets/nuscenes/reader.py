"""nuScenes as a source of scenes, prepared or read in place: a scene per key frame."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from ponderv2.datasets.drives import DriveSource, KeyFrame, chosen, no_scenes, required, stored_bytes
from ponderv2.datasets.nuscenes.build import Track, untracked
from ponderv2.datasets.nuscenes.classes import CLASS_NAMES, COLORS, DETECTION_NAMES
from ponderv2.datasets.nuscenes.config import NuscenesConfig, data_folder, info_files, split_of
from ponderv2.datasets.nuscenes.index import NuscenesIndex, Sample
from ponderv2.datasets.nuscenes.scenes import LIDAR, read_key_frame
from ponderv2.datasets.nuscenes.splits import splits_of
from ponderv2.datasets.nuscenes.tables import AGAIN
from ponderv2.datasets.reader import fingerprint
from ponderv2.errors import SceneError
from ponderv2.scenes.reader import DatasetInfo

READER_VERSION = 1
"""Raised whenever the same tables and files give other scenes, so that stored ones are regenerated."""
EXPECTED = "expected v1.0-trainval/sample_data.json (or v1.0-mini, v1.0-test) beside samples/ and sweeps/"
POINTS, IMAGE_BYTES = 34_700, 160_000
"""Of a scan and an image, for the estimate of disk space."""
LISTED = 3
"""Missing files that are named."""


@dataclass(frozen=True)
class Version:
    """One folder of tables, or file of infos, with its index."""

    tables: Path
    index: NuscenesIndex

    def splits(self) -> dict[str, frozenset[str]]:
        """Names of the scenes that are there, by split, those of the data set first."""
        there = frozenset(self.index.scenes)
        if self.tables.is_file():
            return {split_of(self.tables): there}
        return {split: names & there for split, names in splits_of(self.tables).items() if names & there}


@dataclass(frozen=True)
class NuscenesDrives:
    """Key frames of one or several versions. Names are scene-0061/003_TOKEN."""

    root: Path
    data: Path
    """Folder of samples/ and sweeps/."""
    versions: tuple[Version, ...]
    config: NuscenesConfig

    def names(self, split: str) -> tuple[str, ...]:
        """Of the key frames of a split, drive by drive in the order of time."""
        return tuple(one.name for one in samples_of(self.versions, split, self.config))

    def has(self, split: str, name: str) -> bool:
        """Whether there is such a key frame in the split."""
        return self._find(split, name) is not None

    @property
    def has_frames(self) -> bool:
        """Whether there are cameras."""
        return bool(self.config.cameras) and any(one.index.has_cameras for one in self.versions)

    def read(self, split: str, name: str, labels: bool) -> KeyFrame:
        """A key frame. Raises SceneError."""
        version, sample = self._found(split, name)
        return read_key_frame(self.data, version.index, sample, self.config, labels)

    def fingerprint(self, split: str, name: str) -> str:
        """Settings, what the tables say of this key frame, and contents of its files."""
        version, sample = self._found(split, name)
        index = version.index
        data = index.key_data(sample)
        measured = [one for channel, one in data.items() if channel in (LIDAR, *self.config.cameras)]
        if LIDAR in data:
            measured += index.before(data[LIDAR], sample, max(self.config.sweeps - 1, 0))
            measured += index.after(data[LIDAR], sample, self.config.following)
        labels = index.label_file(data[LIDAR].token) if LIDAR in data else None
        files = [one.filename for one in measured] + ([labels] if labels else [])
        settings = self.config.model_dump_json(exclude={"path", "scenes", "every", "version"})
        listed = f"{measured} {index.annotations(sample)} {index.label_categories}"
        paths = [self.data / one for one in files]
        return fingerprint(self.data, paths, f"nuScenes {READER_VERSION}", settings, listed)

    def problems(self) -> tuple[str, ...]:
        """What was left out of the tables."""
        return tuple(f"{one.tables}: {what}" for one in self.versions for what in one.index.problems)

    def estimated_bytes(self) -> int:
        """Of a prepared scene."""
        images = IMAGE_BYTES * len(self.config.cameras) if self.has_frames else 0
        return stored_bytes(POINTS, self.config.sweeps + self.config.following, images)

    def _found(self, split: str, name: str) -> tuple[Version, Sample]:
        return required(self._find(split, name), name, split, self.root)

    def _find(self, split: str, name: str) -> tuple[Version, Sample] | None:
        scene, _, last = name.partition("/")
        number = last.partition("_")[0]
        for version in self.versions:
            if number.isdecimal() and scene in _splits(version).get(split, frozenset()):
                sample = version.index.sample(scene, int(number))
                if sample is not None and sample.name == name:
                    return version, sample
        return None


def source(config: NuscenesConfig, track: Track = untracked) -> DriveSource:
    """The key frames of the chosen versions. Raises SceneError for tables that cannot be used."""
    data, versions = open_versions(config, track)
    splits = _splits_of(versions)
    if not splits:
        raise no_scenes("drives of a split", config.path, EXPECTED)
    drives = NuscenesDrives(Path(config.path), data, versions, config)
    names = ", ".join(one.tables.name for one in versions)
    about = (f"key frames of {names}, each in the frame of its LiDAR: x right, y forward, z up",)
    return DriveSource(_info(splits), drives, about, partial(missing_files, data, versions))


def open_versions(config: NuscenesConfig, track: Track = untracked) -> tuple[Path, tuple[Version, ...]]:
    """Folder of samples/, and the chosen versions. Raises SceneError where there is none."""
    root = Path(config.path)
    if (root / "sample_data.json").is_file():
        return root.absolute().parent, (Version(root, NuscenesIndex.of(root, track)),)
    there = {one.name: one for one in sorted(root.glob("v1.0-*")) if (one / "sample_data.json").is_file()}
    if config.version and config.version not in there:
        listed = ", ".join(there) or EXPECTED
        raise SceneError(f"no tables {config.version}/sample_data.json in {root}", fix=f"there: {listed}")
    full = [one for one in ("v1.0-trainval", "v1.0-test") if one in there]
    names = [config.version] if config.version else full or list(there)
    infos = [] if names else info_files(root)
    if infos:
        return data_folder(root), tuple(Version(one, NuscenesIndex.of(one, track)) for one in infos)
    if not names:
        half = next((one for one in sorted(root.glob("v1.0-*")) if one.is_dir()), None)
        if half is not None:
            raise SceneError(f"{half} lacks sample_data.json", fix=AGAIN)
        raise no_scenes("tables of nuScenes", root, EXPECTED)
    if len(names) > 1 and not full:
        raise SceneError(f"several versions of nuScenes in {root}", fix=f"--version {names[0]}")
    return root, tuple(Version(there[name], NuscenesIndex.of(there[name], track)) for name in names)


def samples_of(versions: tuple[Version, ...], split: str, config: NuscenesConfig) -> list[Sample]:
    """Key frames of a split, drive by drive in the order of time."""
    found: list[Sample] = []
    for version in versions:
        scenes = _splits(version).get(split, frozenset())
        found += version.index.samples(frozenset(one for one in scenes if chosen(one, config.scenes)))
    if config.every > 1:
        kept = {one.token for one in sorted(found, key=lambda one: one.timestamp)[:: config.every]}
        found = [one for one in found if one.token in kept]
    return found


def missing_files(data: Path, versions: tuple[Version, ...], names: frozenset[str]) -> tuple[str, ...]:
    """Files of key frames that are not there, counted by sensor. Of some drives all are looked for."""
    scenes = {one.partition("/")[0] for one in names}
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
