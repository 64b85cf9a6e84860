"""One ScanNet scene: the vertices of its mesh with labels, and its frames. Vertex i is point i."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ponderv2.datasets.rgbd.layouts import scannet as exported
from ponderv2.datasets.scannet.config import ScannetConfig
from ponderv2.datasets.scannet.frames import (
    FrameFindings,
    FrameLabels,
    LabelZip,
    find_labels,
    find_recording,
    prepared_frames,
)
from ponderv2.datasets.scannet.labels import (
    LabelTable,
    VertexLabels,
    label_vertices,
    labels_of_nyu40,
    read_groups,
    read_label_table,
    read_segments,
)
from ponderv2.errors import SceneError
from ponderv2.geometry.meshes import Mesh
from ponderv2.geometry.normals import vertex_normals
from ponderv2.io.colors import no_colors
from ponderv2.io.ply import read_ply
from ponderv2.io.point_columns import named_columns
from ponderv2.io.text import numbers, read_text
from ponderv2.scenes.origin import compact, far_outliers
from ponderv2.scenes.prepared import PreparedCloud, PreparedScene, SceneStream


@dataclass(frozen=True)
class SceneFiles:
    """Where the parts of a scene are looked for; none but the mesh needs to be there."""

    folder: Path
    name: str

    def _file(self, ending: str) -> Path:
        return self.folder / f"{self.name}{ending}"

    @property
    def mesh(self) -> Path:
        """The simplified mesh, whose vertices are the points of all benchmarks."""
        return self._file("_vh_clean_2.ply")

    @property
    def segments(self) -> Path:
        """Segment of each vertex of the mesh."""
        return self._file("_vh_clean_2.0.010000.segs.json")

    @property
    def aggregation(self) -> Path:
        """Objects as groups of segments."""
        return self._file(".aggregation.json")

    @property
    def labelled_mesh(self) -> Path:
        """The mesh with NYU40 ids."""
        return self._file("_vh_clean_2.labels.ply")

    @property
    def facts(self) -> Path:
        """`key = value`, the alignment of the axes among them."""
        return self._file(".txt")

    def all(self, frames: bool = True) -> tuple[Path, ...]:
        """The files that there are and that shape the prepared scene, with or without its frames.

        Frames are those of the .sens file, or of the folders of an export where there is none.
        """
        own = (self.mesh, self.segments, self.aggregation, self.labelled_mesh, self.facts)
        there = [path for path in own if path.is_file()]
        if not frames:
            return tuple(there)
        recording = self._file(".sens")
        labels = (self._file("_2d-label-filt.zip"), self._file("_2d-label.zip"))
        there += [path for path in (recording, *labels) if path.is_file()]
        if not recording.is_file():
            there += exported.files(self.folder)
        return tuple(there)


def prepare_scene(
    files: SceneFiles, config: ScannetConfig, table_path: Path | None, test: bool
) -> SceneStream:
    """Points, labels and frames of one scene. Raises SceneError naming the file that cannot be used.

    A scene of the test split has no labels and is never turned.
    """
    if not files.mesh.is_file():
        raise SceneError(
            f"no {files.mesh.name} in {files.folder}",
            fix="download it, or prepare the bare recording: ponder prepare rgbd PATH",
        )
    table = read_label_table(table_path) if table_path is not None and not test else None
    transform = _alignment(files) if config.axis_align and not test else np.eye(4)
    bare, mesh, notes = read_surface(files.mesh, transform)
    labels = VertexLabels({}) if table is None else _vertex_labels(files, len(bare.coord), table)
    cloud = replace(bare, labels=labels.arrays)
    found = FrameFindings()
    recording = find_recording(files.folder, files.name) if config.frames else None
    if recording is None:
        found.notes.append("points only" if not config.frames else "no .sens file and no exported frames")
        frames = iter(())
    else:
        shown = _frame_labels(files, config, table, found)
        frames = prepared_frames(recording, config, shown, transform, found)

    def surface() -> PreparedScene:
        more, repairs = found.summary()
        return PreparedScene(cloud, mesh, (*labels.notes, *notes, *more), (*labels.repairs, *repairs))

    return SceneStream(frames, surface)


def _frame_labels(
    files: SceneFiles, config: ScannetConfig, table: LabelTable | None, found: FrameFindings
) -> FrameLabels | None:
    path = find_labels(files.folder, files.name)
    if table is None or path is None:
        return None
    try:
        return FrameLabels(LabelZip.open(path), table.class_of_id(config.label_field))
    except SceneError as error:
        found.repairs.append(f"frames have no labels: {error.message}")
        return None


def _vertex_labels(files: SceneFiles, n_vertices: int, table: LabelTable) -> VertexLabels:
    """From segments and groups, else from the labelled mesh, else none."""
    missing = [path.name for path in (files.segments, files.aggregation) if not path.is_file()]
    if not missing:
        segments = read_segments(files.segments, n_vertices)
        return label_vertices(segments, read_groups(files.aggregation), table)
    if not files.labelled_mesh.is_file():
        return VertexLabels({}, repairs=(f"no labels: {' and '.join(missing)} missing",))
    nyu40 = read_ply(files.labelled_mesh).vertex.get("label")
    if nyu40 is None or len(nyu40) != n_vertices:
        raise SceneError(
            f"{files.labelled_mesh} does not have a label for each of the {n_vertices} vertices of the mesh",
            fix="use files of one download",
        )
    labels = labels_of_nyu40(nyu40.astype(np.int64))
    repair = f"{' and '.join(missing)} missing: 20 classes from {files.labelled_mesh.name}, no instances"
    return VertexLabels(labels.arrays, labels.notes, (repair,))


def read_surface(
    path: Path, transform: Float[ndarray, "4 4"]
) -> tuple[PreparedCloud, Mesh | None, list[str]]:
    """All vertices of a mesh, in their order, after x' = transform x; the mesh, and what to report.

    Normals are those of the faces around a vertex, weighted by area. Raises SceneError for a damaged file.
    """
    ply = read_ply(path)
    coord = np.stack([ply.vertex[axis] for axis in "xyz"], axis=1).astype(np.float64)
    strange = np.flatnonzero(~np.isfinite(coord).all(axis=1) | far_outliers(coord))
    if len(coord) == 0 or len(strange):
        what = (
            f"vertex {strange[0]} is not finite, or far from all others"
            if len(strange)
            else "there are no vertices"
        )
        raise SceneError(f"{path}: {what}", fix="copy the file again")
    coord = coord @ transform[:3, :3].T + transform[:3, 3]
    normal = vertex_normals(coord, ply.faces)
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    lonely = length[:, 0] < 1e-12
    # A point has to stay at its place in the list: without a face around it, it looks up.
    unit = np.where(lonely[:, None], (0.0, 0.0, 1.0), normal / np.maximum(length, 1e-12))
    read = named_columns(ply.vertex, path).color or no_colors(len(coord))
    colors, notes = read.as_bytes(), list(read.notes)
    if lonely.any():
        notes.append(f"{int(lonely.sum())} vertices without a face around them: their normals point up")
    cloud = PreparedCloud(compact(coord), colors, unit.astype(np.float32))
    mesh = Mesh.of_arrays(cloud.coord, ply.faces, colors) if len(ply.faces) else None
    return cloud, mesh, notes


def _alignment(files: SceneFiles) -> Float[ndarray, "4 4"]:
    """The rotation about z and the shift that lay walls along x and y."""
    for line in read_text(files.facts).splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "axisAlignment":
            try:
                matrix = numbers(value).reshape(4, 4)
            except ValueError:
                matrix = np.full((4, 4), np.nan)
            if (
                np.isfinite(matrix).all()
                and np.abs(matrix[:3, :3] @ matrix[:3, :3].T - np.eye(3)).max() < 1e-3
            ):
                return matrix
            raise SceneError(f"axisAlignment of {files.facts} is not a rigid motion", fix="copy it again")
    raise SceneError(f"{files.facts} has no axisAlignment", fix="--set source.axis_align=false")
