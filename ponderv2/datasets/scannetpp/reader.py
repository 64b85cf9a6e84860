"""ScanNet++ as it is downloaded: meshes of laser scans with the classes of its semantic benchmark.

A vertex may belong to several objects; its label is that of the smallest, as in the benchmark. Images of
the iPhone and the DSLR are not read.
"""

from __future__ import annotations

import colorsys
import csv
import fnmatch
import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from ponderv2.datasets.reader import DatasetReader, fingerprint
from ponderv2.datasets.scannet.labels import SegmentGroup, read_groups, read_segments
from ponderv2.datasets.scannet.scene import read_surface
from ponderv2.datasets.scannetpp.config import ScannetppConfig
from ponderv2.errors import SceneError
from ponderv2.geometry.meshes import Mesh
from ponderv2.io.text import read_text
from ponderv2.scenes.origin import compact
from ponderv2.scenes.prepared import PreparedCloud, SceneStream
from ponderv2.scenes.reader import DatasetInfo

LISTS = {
    "train": ("nvs_sem_train.txt",),
    "val": ("nvs_sem_val.txt",),
    "test": ("sem_test.txt", "nvs_test.txt"),
}
"""Lists of scenes below splits/."""
POINT_BYTES = 12 + 12 + 3 + 2 + 2
"""Of the arrays in the store."""
MESH_BYTES_PER_POINT = 40
"""Of a vertex with its faces, in the dataset's mesh and about as many in the store."""
MOST_LABELS = 3
"""Objects that one vertex may belong to; further ones are not counted."""
GOLDEN = 0.618033988749895
"""Hues that far apart (of a turn) stay apart however many there are."""


@dataclass(frozen=True)
class ScannetppScene:
    """One scene."""

    split: str
    name: str
    folder: Path
    class_of_label: dict[str, int]
    config: ScannetppConfig

    @property
    def files(self) -> tuple[Path, Path, Path]:
        """Mesh, segments and groups."""
        names = ("mesh_aligned_0.05.ply", "segments.json", "segments_anno.json")
        mesh, segments, groups = (self.folder / "scans" / name for name in names)
        return mesh, segments, groups

    def fingerprint(self) -> str:
        """Settings, classes, and contents of the files."""
        parts = [self.split, str(self.config.surface_points), str(self.config.seed), str(self.class_of_label)]
        return fingerprint(self.folder, self.files, *parts)

    def estimated_bytes(self) -> int:
        """From the size of the mesh, which is stored beside the points."""
        mesh = self.files[0].stat().st_size if self.files[0].is_file() else 0
        n_points = self.config.surface_points or mesh // MESH_BYTES_PER_POINT
        return mesh + POINT_BYTES * n_points

    def read(self) -> SceneStream:
        """Read mesh and labels. Raises SceneError naming the file that cannot be used."""
        mesh_path, segments_path, groups_path = self.files
        if not mesh_path.is_file():
            raise SceneError(f"no {mesh_path.name} in {mesh_path.parent}", fix="download it, or leave it out")
        cloud, mesh, notes = read_surface(mesh_path, np.eye(4))
        if self.split == "test":
            labels: dict[str, Int[ndarray, " point"]] = {}
        else:
            groups = read_groups(groups_path, number="objectId")
            segments = read_segments(segments_path, len(cloud.coord))
            labels = smallest_objects(segments, groups, self.class_of_label)
            unknown = Counter(one.label for one in groups if one.label not in self.class_of_label)
            notes.append(f"{len(groups)} objects, {unknown.total()} of them of no class of the benchmark")
        cloud = PreparedCloud(cloud.coord, cloud.color, cloud.normal, labels)
        if self.config.surface_points:
            cloud = points_on_surface(cloud, mesh, self.config.surface_points, self._rng())
            notes.append("points drawn on the surface, labels of the nearest corner")
        return SceneStream.of(cloud, (), mesh, tuple(notes))

    def _rng(self) -> np.random.Generator:
        name = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:8], "big")
        return np.random.default_rng([self.config.seed, name])


def smallest_objects(
    segments: Int[ndarray, " point"], groups: tuple[SegmentGroup, ...], class_of_label: dict[str, int]
) -> dict[str, Int[ndarray, " point"]]:
    """Class and object of each vertex: the smallest of its first three objects with a class; -1 = none."""
    segment = np.full(len(segments), -1)
    instance = np.full(len(segments), -1)
    smallest = np.full(len(segments), np.inf)
    n_used = np.zeros(len(segments), np.int64)
    for group in groups:
        number = class_of_label.get(group.label, -1)
        if number < 0:
            continue
        inside = np.isin(segments, group.segments) & (n_used < MOST_LABELS)
        size = int(inside.sum())
        n_used[inside] += 1
        better = inside & (size < smallest)
        segment[better], instance[better], smallest[better] = number, group.id, size
    return {"segment": segment, "instance": instance}


def points_on_surface(
    cloud: PreparedCloud, mesh: Mesh | None, n_points: int, rng: np.random.Generator
) -> PreparedCloud:
    """Points uniform by area. Colours and normals are interpolated, labels are of the nearest vertex."""
    if mesh is None:
        raise SceneError("the mesh has no faces to draw points on", fix="--set source.surface_points=0")
    faces = mesh.faces.numpy()
    corner = cloud.coord[faces].astype(np.float64)
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1)
    face = np.searchsorted(np.cumsum(area), rng.random(n_points) * area.sum(), side="right")
    face = np.minimum(face, len(area) - 1)
    root, along = np.sqrt(rng.random(n_points)), rng.random(n_points)
    weight = np.stack([1 - root, root * (1 - along), root * along], axis=1)
    vertex = faces[face]
    coord = np.einsum("pc,pcx->px", weight, cloud.coord[vertex])
    color = None
    if cloud.color is not None:
        mixed = np.einsum("pc,pcx->px", weight, cloud.color[vertex].astype(np.float64))
        color = np.rint(mixed).astype(np.uint8)
    normal = np.einsum("pc,pcx->px", weight, cloud.normal[vertex])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    distance = np.linalg.norm(cloud.coord[vertex] - coord[:, None], axis=2)
    nearest = vertex[np.arange(n_points), distance.argmin(axis=1)]
    labels = {name: values[nearest] for name, values in cloud.labels.items()}
    return PreparedCloud(compact(coord), color, normal.astype(np.float32), labels)


def find(config: ScannetppConfig) -> DatasetReader:
    """The listed scenes that are there. Raises SceneError for missing folders, lists or classes."""
    root = config.path
    if not (root / "data").is_dir():
        raise SceneError(
            f"no folder {root / 'data'}", fix="give the folder with data/, splits/ and metadata/"
        )
    names, class_of_label = read_classes(root / "metadata/semantic_benchmark")
    scenes, missing = [], 0
    for split, lists in LISTS.items():
        path = next((root / "splits" / one for one in lists if (root / "splits" / one).is_file()), None)
        for name in read_text(path).split() if path is not None else []:
            if config.scenes and not any(fnmatch.fnmatch(name, pattern) for pattern in config.scenes):
                continue
            folder = root / "data" / Path(name).name
            if folder.name != ".." and _is_folder(folder / "scans"):
                scenes.append(ScannetppScene(split, folder.name, folder, class_of_label, config))
            else:
                missing += 1
    if not scenes:
        raise SceneError(
            f"no scene of the lists in {root / 'splits'} lies in {root / 'data'}",
            fix="the lists are nvs_sem_train.txt, nvs_sem_val.txt and sem_test.txt of the download",
        )
    count = Counter(scene.split for scene in scenes)
    notes = [f"ScanNet++ scenes in {root}: " + ", ".join(f"{n} {split}" for split, n in count.items())]
    notes += [f"{missing} listed scenes are not there"] if missing else []
    info = DatasetInfo("ScanNet++", names, class_colors(len(names)), "segment", splits=tuple(count))
    return DatasetReader(info, tuple(scenes), tuple(notes), root=root)


def _is_folder(path: Path) -> bool:
    """No for names that no disk can hold, too."""
    try:
        return path.is_dir()
    except OSError:
        return False


def read_classes(folder: Path) -> tuple[tuple[str, ...], dict[str, int]]:
    """Names of the classes, and the class of each annotated label; labels without a class are left out."""
    top, table = folder / "top100.txt", folder / "map_benchmark.csv"
    for path in (top, table):
        if not path.is_file():
            raise SceneError(f"no {path.name} in {folder}", fix="download the metadata of ScanNet++ too")
    names = tuple(line.strip() for line in read_text(top).splitlines() if line.strip())
    rows = csv.DictReader(read_text(table).splitlines())
    if not {"class", "semantic_map_to"} <= set(rows.fieldnames or ()):
        raise SceneError(f"{table} has no columns 'class' and 'semantic_map_to'", fix="download it again")
    number_of = {name: number for number, name in enumerate(names)}
    found = dict(number_of)
    for row in rows:
        label, target = row["class"] or "", (row["semantic_map_to"] or "").strip()
        if target == "None":
            found.pop(label, None)
        elif target in number_of:
            found[label] = number_of[target]
        elif target:
            found.pop(label, None)  # mapped to something that is not a class of the benchmark
    return names, found


def class_colors(n_classes: int) -> tuple[tuple[int, int, int], ...]:
    """RGB 0..255; neighbours differ."""
    colors = (
        colorsys.hsv_to_rgb(number * GOLDEN % 1.0, (0.75, 0.45)[number % 2], (0.95, 0.8, 0.6)[number % 3])
        for number in range(n_classes)
    )
    return tuple((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in colors)
