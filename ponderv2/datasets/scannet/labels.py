"""ScanNet's annotation of a mesh: over-segmentation, groups of segments, and the table of categories."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from ponderv2.datasets.scannet import scannet20, scannet200
from ponderv2.errors import SceneError
from ponderv2.io.text import read_json, read_text

TABLE_FILE = "scannetv2-labels.combined.tsv"
COPY_AGAIN = "copy the file again"


@dataclass(frozen=True)
class LabelTable:
    """Entry of the label table for a category. Of several rows the first counts."""

    nyu40_of_category: dict[str, int]
    id_of_category: dict[str, int]
    nyu40_of_id: dict[int, int]
    outdated: int
    """Classes of ScanNet200 that are missing or are called otherwise: 0 in today's table."""

    def classes20(self, category: str) -> int:
        """0..19, -1 = none."""
        return scannet20.CLASS_OF_NYU40.get(self.nyu40_of_category.get(category, 0), -1)

    def classes200(self, category: str) -> int:
        """0..199, -1 = none."""
        return scannet200.CLASS_OF_LABEL_ID.get(self.id_of_category.get(category, 0), -1)

    def class_of_id(self, label_field: str) -> Int[ndarray, "65536"]:
        """Class by the numbers of 2D labels, -1 where there is none."""
        classes = np.full(65536, -1, np.int16)
        if label_field == "segment200":
            for label_id, number in scannet200.CLASS_OF_LABEL_ID.items():
                classes[label_id] = number
            return classes
        for label_id, nyu40 in self.nyu40_of_id.items():
            if 0 < label_id < len(classes):
                classes[label_id] = scannet20.CLASS_OF_NYU40.get(nyu40, -1)
        return classes


@dataclass(frozen=True)
class SegmentGroup:
    """One annotated object."""

    id: int
    label: str
    """Raw category."""
    segments: Int[ndarray, " segment"]


@dataclass(frozen=True)
class VertexLabels:
    """Labels of the vertices; -1 = none."""

    arrays: dict[str, Int[ndarray, " point"]]
    notes: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()


def read_label_table(path: Path) -> LabelTable:
    """The label table. Raises SceneError when the file is not one."""
    rows = csv.DictReader(read_text(path).splitlines(), delimiter="\t")
    missing = {"id", "raw_category", "nyu40id"} - set(rows.fieldnames or ())
    if missing:
        raise SceneError(
            f"{path} is not ScanNet's label table: no column '{min(missing)}'",
            fix=f"give the file {TABLE_FILE} of ScanNet v2",
        )
    nyu40_of_category: dict[str, int] = {}
    id_of_category: dict[str, int] = {}
    nyu40_of_id: dict[int, int] = {}
    names: dict[int, set[str]] = {}
    for row in rows:
        category, label_id, nyu40 = row["raw_category"] or "", _number(row["id"]), _number(row["nyu40id"])
        nyu40_of_category.setdefault(category, nyu40)
        id_of_category.setdefault(category, label_id)
        nyu40_of_id.setdefault(label_id, nyu40)
        names.setdefault(label_id, set()).update((category, row.get("category") or ""))
    pairs = zip(scannet200.LABEL_IDS, scannet200.CLASS_NAMES, strict=True)
    outdated = sum(name not in names.get(label_id, ()) for label_id, name in pairs)
    return LabelTable(nyu40_of_category, id_of_category, nyu40_of_id, outdated)


def read_segments(path: Path, n_vertices: int) -> Int[ndarray, " point"]:
    """The segment of each vertex."""
    values = _list(read_json(path), "segIndices", path)
    try:
        segments = np.array(values, np.int64)
    except (ValueError, TypeError, OverflowError) as error:
        raise SceneError(f"'segIndices' of {path} holds other things than numbers", fix=COPY_AGAIN) from error
    if segments.shape != (n_vertices,):
        raise SceneError(
            f"{path} has {len(values)} segment numbers for the {n_vertices} vertices of the mesh",
            fix="use the mesh and the segments of one download",
        )
    return segments


def read_groups(path: Path, number: str = "id") -> tuple[SegmentGroup, ...]:
    """The annotated objects, in the order of the file; `number` is the key that numbers them."""
    try:
        return tuple(_group(one, number) for one in _list(read_json(path), "segGroups", path))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise SceneError(
            f"{path} is damaged: a group lacks its id, label or segments", fix=COPY_AGAIN
        ) from error


def _group(values: dict[str, Any], key: str) -> SegmentGroup:
    number = int(values[key])
    if not 0 <= number < 2**31:
        raise ValueError(number)
    return SegmentGroup(number, str(values["label"]), np.array(values["segments"], np.int64).reshape(-1))


def label_vertices(
    segments: Int[ndarray, " point"], groups: tuple[SegmentGroup, ...], table: LabelTable
) -> VertexLabels:
    """Classes and instances of the vertices; of several groups that claim a segment the last one has it."""
    known, segment_of_vertex = np.unique(segments, return_inverse=True)
    group_of_segment = np.full(len(known), -1)
    for number, group in enumerate(groups):
        place = np.minimum(np.searchsorted(known, group.segments), len(known) - 1)
        group_of_segment[place[known[place] == group.segments]] = number
    # The last row is that of vertices without a group.
    of_group = np.array(
        [(table.classes20(one.label), table.classes200(one.label), one.id) for one in groups]
        + [(-1, -1, -1)],
        np.int64,
    )
    group_of_vertex = group_of_segment[segment_of_vertex]
    class20, class200, instance = of_group[group_of_vertex].T
    arrays = {"segment20": class20, "segment200": class200, "instance": instance}
    return VertexLabels(arrays, _notes(groups, group_of_vertex, table))


def labels_of_nyu40(nyu40: Int[ndarray, " point"]) -> VertexLabels:
    """The 20 classes from NYU40 ids of the vertices. Some files hold ids that NYU40 does not have."""
    classes = np.full(65536, -1)
    classes[list(scannet20.CLASS_OF_NYU40)] = list(scannet20.CLASS_OF_NYU40.values())
    values = nyu40.astype(np.int64)
    usable = (values >= 0) & (values < len(classes))
    segment = np.where(usable, classes[np.where(usable, values, 0)], -1)
    strange = Counter(values[(values < 0) | (values > 40)].tolist())
    notes = tuple(
        f"{count} vertices with the unknown NYU40 id {one}" for one, count in sorted(strange.items())
    )
    return VertexLabels({"segment20": segment}, notes)


def _notes(
    groups: tuple[SegmentGroup, ...], group_of_vertex: Int[ndarray, " point"], table: LabelTable
) -> tuple[str, ...]:
    n_vertices = np.bincount(group_of_vertex + 1, minlength=len(groups) + 1)
    unknown: Counter[str] = Counter()
    for number, group in enumerate(groups):
        if group.label not in table.id_of_category:
            unknown[group.label] += int(n_vertices[number + 1])
    notes = [f"{len(groups)} annotated objects, {n_vertices[0]} vertices without annotation"]
    if unknown:
        listed = ", ".join(f"'{name}'" for name, _ in unknown.most_common(5))
        notes.append(f"{unknown.total()} vertices of categories that the label table lacks: {listed}")
    doubled = [one for one, count in Counter(group.id for group in groups).items() if count > 1]
    if doubled:
        notes.append(f"the instance number {doubled[0]} stands for several objects")
    return tuple(notes)


def _list(values: dict[str, Any], key: str, path: Path) -> list[Any]:
    found = values.get(key)
    if not isinstance(found, list):
        raise SceneError(f"{path} has no list '{key}'", fix=COPY_AGAIN)
    return found


def _number(text: str | None) -> int:
    """0 for an empty or unreadable cell."""
    try:
        return int(text or 0)
    except ValueError:
        return 0
