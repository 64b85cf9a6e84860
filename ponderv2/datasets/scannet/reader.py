"""ScanNet v2 as it is downloaded: scenes, their splits and the label table."""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ponderv2.datasets.reader import DatasetReader, fingerprint
from ponderv2.datasets.scannet import scannet20, scannet200
from ponderv2.datasets.scannet.config import ScannetConfig
from ponderv2.datasets.scannet.labels import TABLE_FILE, read_label_table
from ponderv2.datasets.scannet.scene import SceneFiles, prepare_scene
from ponderv2.errors import SceneError
from ponderv2.io.files import digest_of_file
from ponderv2.io.text import read_text
from ponderv2.scenes.prepared import SceneStream
from ponderv2.scenes.reader import DatasetInfo, LabelSet

SPLITS = ("train", "val", "test")
BYTES_PER_FRAME = 450_000
"""Rather too many than too few: colour, depth and classes of 640 x 480 pixels."""
_SCENE_NAME = re.compile(r"scene\d{4}_\d{2}")


@dataclass(frozen=True)
class ScannetScene:
    """One scene."""

    split: str
    name: str
    folder: Path
    table: Path | None
    table_digest: str
    config: ScannetConfig

    def fingerprint(self) -> str:
        """Settings, the label table, and names and contents of the files that the scene is made from."""
        settings = self.config.model_dump(mode="json", exclude={"path", "scenes", "splits", "labels"})
        files = SceneFiles(self.folder, self.name).all(self.config.frames)
        return fingerprint(self.folder, files, str(settings), self.split, self.table_digest)

    def estimated_bytes(self) -> int:
        """About twice the mesh, and as much per frame as the recording takes."""
        mesh = SceneFiles(self.folder, self.name).mesh
        points = 2 * mesh.stat().st_size if mesh.is_file() else 0
        return points + (self._bytes_of_frames() if self.config.frames else 0)

    def _bytes_of_frames(self) -> int:
        recording = self.folder / f"{self.name}.sens"
        if recording.is_file():
            total = recording.stat().st_size // self.config.stride
        else:
            total = self._n_exported() * BYTES_PER_FRAME
        most = self.config.max_frames
        return total if most is None else min(total, most * BYTES_PER_FRAME)

    def _n_exported(self) -> int:
        """Exported frames that are taken, by the names of the files: opening each would take long."""
        for folder in (self.folder / "depth", self.folder / "frames" / "depth"):
            if folder.is_dir():
                numbers = [int(path.stem) for path in folder.iterdir() if path.stem.isdecimal()]
                span = max(numbers, default=0) - min(numbers, default=0)
                return min(len(numbers), span // self.config.stride + 1)
        return 0

    def read(self) -> SceneStream:
        """Read mesh, labels and frames."""
        files = SceneFiles(self.folder, self.name)
        return prepare_scene(files, self.config, self.table, test=self.split == "test")


def find(config: ScannetConfig) -> DatasetReader:
    """All scenes. Raises SceneError when there are no scenes, or labels but no table of them."""
    root = config.path
    if not root.is_dir():
        raise SceneError(f"no folder {root}", fix="give the folder that holds scans/ and scans_test/")
    found = _scene_folders(root)
    chosen = [one for one in found if not config.scenes or _named(one[0].name, config.scenes)]
    if not chosen:
        raise SceneError(
            f"no scene of {root} is called {config.scenes[0]}" if found else f"no ScanNet scenes in {root}",
            fix="give the folder that holds scans/scene0000_00/scene0000_00_vh_clean_2.ply, ...",
        )
    folders = _near(root)
    splits, notes = _splits(config, folders, chosen)
    table, warnings = None, ()
    if config.semantics and any(split != "test" for split in splits):
        table = _label_table(config, folders)
        notes.append(f"label table {table}")
        warnings = _table_warnings(table)
    digest = digest_of_file(table) if table is not None else ""
    scenes = tuple(
        ScannetScene(split, folder.name, folder, table, digest, config)
        for split, (folder, _) in zip(splits, chosen, strict=True)
    )
    count = Counter(splits)
    listed = ", ".join(f"{count[split]} {split}" for split in SPLITS if count[split])
    info = _info(config.label_field, tuple(split for split in SPLITS if count[split]))
    return DatasetReader(info, scenes, (f"ScanNet scenes in {root}: {listed}", *notes), warnings, root=root)


def _info(label_field: str, splits: tuple[str, ...]) -> DatasetInfo:
    """Both sets of classes; which of them is the usual one is a setting."""
    sets = {
        "segment20": LabelSet(scannet20.CLASS_NAMES, scannet20.COLORS),
        "segment200": LabelSet(scannet200.CLASS_NAMES, scannet200.COLORS),
    }
    main = sets.pop(label_field)
    return DatasetInfo(
        "ScanNet", main.class_names, main.class_colors, label_field, other_labels=sets, splits=splits
    )


def _scene_folders(root: Path) -> list[tuple[Path, bool]]:
    """Folders of scenes, and whether they lie in scans_test."""
    if _is_scene(root.resolve()):
        return [(root.resolve(), root.resolve().parent.name == "scans_test")]
    folders = [root / name for name in ("scans", "scans_test") if (root / name).is_dir()] or [root]
    return [
        (path, folder.resolve().name == "scans_test")
        for folder in folders
        for path in sorted(folder.iterdir())
        if path.is_dir() and _is_scene(path)
    ]


def _is_scene(path: Path) -> bool:
    return _SCENE_NAME.fullmatch(path.name) is not None or (path / f"{path.name}_vh_clean_2.ply").is_file()


def _named(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _near(root: Path) -> tuple[Path, ...]:
    """Folders in which lists and table are looked for: the data's own and, for a part of it, those above."""
    roots = [root.resolve()]
    while len(roots) < 3 and (_is_scene(roots[-1]) or roots[-1].name in ("scans", "scans_test")):
        roots.append(roots[-1].parent)
    inside = ("", "meta_data", "splits", "tasks", "Tasks/Benchmark")
    return tuple(one / name for one in roots for name in inside)


def _splits(
    config: ScannetConfig, folders: tuple[Path, ...], scenes: list[tuple[Path, bool]]
) -> tuple[list[str], list[str]]:
    """The split of each scene, and what to report about it."""
    if config.splits is not None and not config.splits.is_dir():
        raise SceneError(
            f"no folder {config.splits}, which source.splits names", fix="give a folder of lists"
        )
    searched = folders if config.splits is None else (config.splits,)
    split_of: dict[str, str] = {}
    for split in SPLITS:
        path = _first(searched, f"scannetv2_{split}.txt")
        if path is not None:
            split_of.update(dict.fromkeys(read_text(path).split(), split))
    splits = ["test" if test else split_of.get(folder.name, "train") for folder, test in scenes]
    listed_nowhere = [folder.name for folder, test in scenes if not test and folder.name not in split_of]
    if not listed_nowhere:
        return splits, []
    if not split_of:
        where = searched[0] if config.splits is not None else folders[0]
        return splits, [
            f"no lists scannetv2_train.txt, _val.txt: all scenes are training scenes; put them into {where} "
            f"or name their folder with source.splits"
        ]
    return splits, [
        f"{len(listed_nowhere)} scenes are in no list and count as training scenes: {listed_nowhere[0]}, ..."
    ]


def _label_table(config: ScannetConfig, folders: tuple[Path, ...]) -> Path:
    if config.labels is not None:
        if not config.labels.is_file():
            raise SceneError(
                f"no file {config.labels}, which source.labels names", fix="give the label table"
            )
        return config.labels
    found = _first(folders, TABLE_FILE)
    if found is None:
        raise SceneError(
            f"no {TABLE_FILE} in {folders[0]} or its folder meta_data/",
            fix="--set source.labels=FILE (it comes with the download), or --set source.semantics=false",
        )
    return found


def _table_warnings(path: Path) -> tuple[str, ...]:
    """An old copy is good for 20 classes only."""
    outdated = read_label_table(path).outdated
    if not outdated:
        return ()
    return (
        f"{path} is an old copy: {outdated} of ScanNet200's classes are missing or are called otherwise, so "
        "the 200 classes will differ from published ones; download the label table again",
    )


def _first(folders: tuple[Path, ...], name: str) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)
