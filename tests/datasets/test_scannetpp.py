"""ScanNet++: labels of the smallest object, splits, points on the surface, missing files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ponderv2.datasets.reader import SizedScene
from ponderv2.datasets.scannetpp.config import ScannetppConfig
from ponderv2.datasets.scannetpp.reader import find, smallest_objects
from ponderv2.errors import SceneError
from ponderv2.scenes.prepared import PreparedScene
from tests.datasets import scannet_files as raw

GROUPS = [
    {"id": 1, "objectId": 11, "label": "floor", "segments": [100, 7]},
    {"id": 2, "objectId": 12, "label": "books", "segments": [55]},
    {"id": 3, "objectId": 13, "label": "table", "segments": [55, 56]},
    {"id": 4, "objectId": 14, "label": "nothing known", "segments": [9]},
    {"id": 5, "objectId": 15, "label": "REMOVE", "segments": [9]},
    {"id": 6, "objectId": 16, "label": "paper", "segments": [56]},
]
MAP = """class,count,semantic_map_to,instance_map_to
floor,9,,
books,5,book,book
REMOVE,3,None,None
paper,1,pile,
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("aa00", "bb11", "cc22"):
        folder = tmp_path / "data" / name / "scans"
        folder.mkdir(parents=True)
        (folder / "mesh_aligned_0.05.ply").write_bytes(raw.ply_bytes())
        if name != "cc22":
            (folder / "segments.json").write_text(json.dumps({"segIndices": raw.SEGMENTS}))
            (folder / "segments_anno.json").write_text(json.dumps({"segGroups": GROUPS}))
    (tmp_path / "splits").mkdir()
    for name, scenes in (("nvs_sem_train", "aa00\nzz99\n"), ("nvs_sem_val", "bb11"), ("sem_test", "cc22")):
        (tmp_path / f"splits/{name}.txt").write_text(scenes)
    folder = tmp_path / "metadata/semantic_benchmark"
    folder.mkdir(parents=True)
    (folder / "top100.txt").write_text("wall\nfloor\ntable\nbook\n")
    (folder / "map_benchmark.csv").write_text(MAP)
    return tmp_path


def surface(root: Path, name: str = "aa00", **settings) -> PreparedScene:
    jobs = find(ScannetppConfig.model_validate({"path": root, **settings})).scenes
    return next(job for job in jobs if job.name == name).read().finish()


def test_lists_make_the_splits_and_missing_scenes_are_counted(root: Path):
    plan = find(ScannetppConfig(path=root))
    assert {job.name: job.split for job in plan.scenes} == {"aa00": "train", "bb11": "val", "cc22": "test"}
    assert plan.info.name == "ScanNet++" and plan.info.class_names == ("wall", "floor", "table", "book")
    assert len(set(plan.info.class_colors)) == 4 and "1 listed scenes are not there" in plan.notes


def test_the_smallest_object_has_the_vertex(root: Path):
    found = surface(root)
    assert np.array_equal(found.cloud.coord, raw.COORD.astype(np.float32))
    assert found.cloud.labels["segment"].tolist() == [1] * 8 + [3] * 4 + [2] * 4 + [-1]
    assert found.cloud.labels["instance"].tolist() == [11] * 8 + [12] * 4 + [13] * 4 + [-1]
    assert any("6 objects, 3 of them of no class" in note for note in found.notes)
    assert not surface(root, "cc22").cloud.labels


def textbook(segments: list[int], groups: list[tuple[int, int, list[int]]]) -> list[tuple[int, int]]:
    """Vertex by vertex: up to three (size, order, class, object), of which the smallest counts."""
    claims: list[list[tuple[int, int, int, int]]] = [[] for _ in segments]
    for order, (number, instance, wanted) in enumerate(groups):
        inside = [v for v, one in enumerate(segments) if one in wanted and len(claims[v]) < 3]
        for vertex in inside:
            claims[vertex].append((len(inside), order, number, instance))
    return [min(one)[2:] if one else (-1, -1) for one in claims]


def test_random_overlaps_match_the_textbook_loop():
    from ponderv2.datasets.scannet.labels import SegmentGroup

    rng = np.random.default_rng(3)
    for _ in range(20):
        segments = rng.integers(0, 6, 40)
        lists = [rng.choice(6, rng.integers(1, 5), replace=False) for _ in range(7)]
        groups = tuple(SegmentGroup(10 + i, str(i % 4), one) for i, one in enumerate(lists))
        found = smallest_objects(segments, groups, {str(i): i for i in range(4)})
        expected = textbook(segments.tolist(), [(i % 4, 10 + i, one.tolist()) for i, one in enumerate(lists)])
        assert list(zip(found["segment"].tolist(), found["instance"].tolist(), strict=True)) == expected


def test_points_on_the_surface_lie_on_faces_in_proportion_to_their_area(root: Path):
    found = surface(root, surface_points=4000)
    coord = found.cloud.coord
    from tests.scenes.box_room import LOWER, UPPER, distance_to_room

    assert len(coord) == 4000 and np.abs(distance_to_room(coord.astype(float))).max() < 1e-5
    sides = UPPER - LOWER
    block = np.array([0.9, 0.9, 0.8])
    total = 2 * sum(v[i] * v[j] for v in (sides, block) for i, j in ((0, 1), (0, 2), (1, 2)))
    share = (coord[:, 2] > UPPER[2] - 1e-5).mean()
    assert abs(share - sides[0] * sides[1] / total) < 0.03
    segment = found.cloud.labels["segment"]
    assert (segment[coord[:, 2] > UPPER[2] - 1e-5] == 1).all()
    assert (segment[np.abs(coord[:, 2] - 0.8) < 1e-6] == 2).all() and (segment == 3).any()
    assert np.array_equal(coord, surface(root, surface_points=4000).cloud.coord)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("metadata/semantic_benchmark/top100.txt", r"no top100\.txt"),
        ("metadata/semantic_benchmark/map_benchmark.csv", r"no map_benchmark\.csv"),
        ("data/aa00/scans/mesh_aligned_0.05.ply", r"no mesh_aligned_0\.05\.ply in .*aa00"),
        ("data/aa00/scans/segments.json", r"segments\.json"),
    ],
)
def test_missing_files_are_named(root: Path, path: str, message: str):
    (root / path).unlink()
    with pytest.raises(SceneError, match=message):
        surface(root)


def test_the_estimate_grows_with_the_mesh_and_the_points_that_are_asked_for(root: Path):
    def estimate(**settings) -> int:
        job = find(ScannetppConfig.model_validate({"path": root, **settings})).scenes[0]
        assert isinstance(job, SizedScene)
        return job.estimated_bytes()

    mesh = (root / "data/aa00/scans/mesh_aligned_0.05.ply").stat().st_size
    assert mesh < estimate() < 2 * mesh
    assert estimate(surface_points=1000) == mesh + 31 * 1000
    (root / "data/aa00/scans/mesh_aligned_0.05.ply").unlink()
    assert estimate() == 0


def test_a_list_cannot_lead_out_of_the_data(root: Path):
    (root / "scans").mkdir()
    (root / "splits/nvs_sem_train.txt").write_text("..\naa00\n../../aa00\n.\n")
    assert {job.folder for job in find(ScannetppConfig(path=root)).scenes} == {
        root / "data" / name for name in ("aa00", "bb11", "cc22")
    }
