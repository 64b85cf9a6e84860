"""ScanNet's scenes: points, labels, splits, and the messages about files that are missing or damaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ponderv2.datasets.reader import DatasetReader
from ponderv2.datasets.scannet import scannet20, scannet200
from ponderv2.datasets.scannet.config import ScannetConfig
from ponderv2.datasets.scannet.reader import find
from ponderv2.errors import SceneError
from ponderv2.io.ply import read_ply
from ponderv2.scenes.prepared import PreparedCloud, PreparedScene
from tests.datasets import scannet_files as raw


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One training scene with everything but images."""
    raw.write_scene(tmp_path / "scannet/scans" / raw.NAME)
    raw.write_table(tmp_path / "scannet" / "scannetv2-labels.combined.tsv")
    return tmp_path / "scannet"


def plan(path: Path, **settings) -> DatasetReader:
    return find(ScannetConfig.model_validate({"path": path, **settings}))


def surface(path: Path, **settings) -> PreparedScene:
    (job,) = plan(path, **settings).scenes
    scene = job.read()
    list(scene.frames)
    return scene.finish()


def scene_file(root: Path, ending: str) -> Path:
    return root / "scans" / raw.NAME / f"{raw.NAME}{ending}"


def slow_normals(coord: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals of the faces around a vertex, each weighted by its area, one after the other."""
    total = np.zeros(coord.shape)
    for face in faces:
        first, second, third = coord[face]
        cross = np.cross(second - first, third - first)
        area = np.linalg.norm(cross) / 2
        for vertex in face:
            total[vertex] += cross / (2 * area) * area
    return total / (np.linalg.norm(total, axis=1, keepdims=True) + 1e-8)


def test_point_i_is_vertex_i_with_its_colour_and_the_slow_normals(root: Path):
    cloud = surface(root).cloud
    assert np.array_equal(cloud.coord, raw.COORD.astype(np.float32))
    assert np.array_equal(cloud.color, raw.COLOR)
    assert np.allclose(cloud.normal[:16], slow_normals(raw.COORD, raw.FACES)[:16], atol=1e-6)
    assert cloud.normal[16].tolist() == [0, 0, 1]
    assert (cloud.normal[:4, 2] > 0).all() and (cloud.normal[4:8, 2] < 0).all()


def test_labels_are_those_worked_out_by_hand(root: Path):
    found = surface(root)
    labels = found.cloud.labels
    assert labels["segment20"].tolist() == raw.SEGMENT20
    assert labels["segment200"].tolist() == raw.SEGMENT200
    assert labels["instance"].tolist() == raw.INSTANCE
    assert any("4 vertices of categories" in note and "heap of things" in note for note in found.notes)
    assert any("4 annotated objects, 1 vertices without" in note for note in found.notes)
    assert any("1 vertices without a face" in note for note in found.notes)


def test_later_groups_overwrite_earlier_ones(root: Path):
    path = scene_file(root, ".aggregation.json")
    groups = json.loads(path.read_text())
    groups["segGroups"].append({"id": 9, "segments": [100, 9], "label": "wall"})
    path.write_text(json.dumps(groups))
    labels = surface(root).cloud.labels
    assert labels["segment20"].tolist() == [0] * 8 + raw.SEGMENT20[8:16] + [0]
    assert labels["instance"].tolist() == [9] * 4 + raw.INSTANCE[4:16] + [9]


def test_the_first_of_contradicting_rows_counts_and_classes_differ_by_benchmark(root: Path):
    path = scene_file(root, ".aggregation.json")
    labels = ["object", "dumbbell", "side tables"]
    groups = [{"id": i, "segments": [s], "label": labels[i]} for i, s in enumerate((100, 7, 55))]
    path.write_text(json.dumps({"segGroups": groups}))
    found = surface(root).cloud.labels
    assert found["segment20"].tolist() == [-1] * 8 + [6] * 4 + [-1] * 5
    names = [scannet200.CLASS_NAMES[number] if number >= 0 else "" for number in found["segment200"]]
    assert names == ["object"] * 4 + ["dumbbell"] * 4 + ["coffee table"] * 4 + [""] * 5


def test_the_store_knows_both_sets_of_classes(root: Path):
    info = plan(root).info
    assert (info.name, info.label_field) == ("ScanNet", "segment20")
    assert info.label_set("segment20").class_names == scannet20.CLASS_NAMES
    assert info.label_set("segment200").class_names == scannet200.CLASS_NAMES
    turned = plan(root, label_field="segment200").info
    assert turned.class_names == scannet200.CLASS_NAMES and turned.label_field == "segment200"
    assert turned.label_set("segment20").class_names == scannet20.CLASS_NAMES


def test_scenes_go_where_the_lists_say(root: Path):
    for name in ("scene0002_00", "scene0003_01"):
        raw.write_scene(root / "scans" / name)
    raw.write_scene(root / "scans_test" / "scene0707_00", labels=False)
    everything = plan(root)
    assert {job.split for job in everything.scenes if job.name != "scene0707_00"} == {"train"}
    assert any("no lists" in note and str(root.resolve()) in note for note in everything.notes)
    (root / "meta_data").mkdir()
    (root / "meta_data/scannetv2_train.txt").write_text("scene0001_00\nscene0002_00\n")
    (root / "meta_data/scannetv2_val.txt").write_text("scene0003_01\n")
    for given in (root, root / "scans"):
        found = {job.name: job.split for job in plan(given).scenes}
        assert found.pop("scene0707_00", "test") == "test"
        assert found == {raw.NAME: "train", "scene0002_00": "train", "scene0003_01": "val"}
    assert plan(root).info.splits == ("train", "val", "test")
    (root / "meta_data/scannetv2_val.txt").unlink()
    assert any("1 scenes are in no list" in note and "scene0003_01" in note for note in plan(root).notes)


def test_a_scene_can_be_given_by_its_folder_or_its_name(root: Path):
    raw.write_scene(root / "scans" / "scene0002_00")
    (root / "scannetv2_val.txt").write_text(f"{raw.NAME}\n")
    (job,) = plan(root / "scans" / raw.NAME).scenes
    assert (job.name, job.split) == (raw.NAME, "val")
    assert [job.name for job in plan(root, scenes=["*2_00"]).scenes] == ["scene0002_00"]
    with pytest.raises(SceneError, match="is called kitchen"):
        plan(root, scenes=["kitchen"])


def test_test_scenes_have_no_labels_and_are_not_turned(root: Path):
    raw.write_scene(root / "scans_test/scene0707_00", labels=False)
    (root / "scannetv2-labels.combined.tsv").unlink()
    found = surface(root / "scans_test", axis_align=True)
    assert not found.cloud.labels and not found.repairs
    assert np.array_equal(found.cloud.coord, raw.COORD.astype(np.float32))


def test_aligned_axes_turn_points_normals_and_mesh_together(root: Path):
    plain, turned = surface(root), surface(root, axis_align=True)
    assert np.allclose(turned.cloud.coord, plain.cloud.coord @ raw.ALIGNMENT[:3, :3].T + raw.ALIGNMENT[:3, 3])
    assert np.allclose(turned.cloud.normal[:16], plain.cloud.normal[:16] @ raw.ALIGNMENT[:3, :3].T, atol=1e-6)
    assert turned.mesh is not None and np.array_equal(turned.mesh.vertices, turned.cloud.coord)
    scene_file(root, ".txt").write_text("sceneType = Office\n")
    with pytest.raises(SceneError, match="no axisAlignment"):
        surface(root, axis_align=True)


def test_a_missing_table_is_said_with_the_place_and_the_way_out(root: Path, tmp_path: Path):
    table = root / "scannetv2-labels.combined.tsv"
    table.rename(tmp_path / "elsewhere.tsv")
    with pytest.raises(SceneError, match=r"no scannetv2-labels\.combined\.tsv in .*scannet") as caught:
        plan(root)
    assert caught.value.fix is not None and "source.labels=" in caught.value.fix
    assert not surface(root, semantics=False).cloud.labels
    labels = surface(root, labels=tmp_path / "elsewhere.tsv").cloud.labels
    assert labels["segment20"].tolist() == raw.SEGMENT20
    with pytest.raises(SceneError, match=r"nothing\.tsv"):
        plan(root, labels=tmp_path / "nothing.tsv")


def test_an_old_copy_of_the_table_is_recognised(root: Path):
    pairs = zip(scannet200.LABEL_IDS, scannet200.CLASS_NAMES, strict=True)
    rows = [(str(number), f"some {name}", name, "40") for number, name in pairs]
    raw.write_table(root / "scannetv2-labels.combined.tsv", rows)
    assert not plan(root).warnings
    rows[6] = (rows[6][0], "cupboard", "cupboard", "3")
    raw.write_table(root / "scannetv2-labels.combined.tsv", rows[:-1])
    (warning,) = plan(root).warnings
    assert "old copy: 2 of ScanNet200's classes" in warning


def test_without_groups_the_labelled_mesh_gives_the_20_classes(root: Path):
    nyu40 = [2] * 4 + [1] * 4 + [7] * 4 + [40] * 2 + [50] + [149] + [0]
    scene_file(root, "_vh_clean_2.labels.ply").write_bytes(raw.ply_bytes(nyu40))
    scene_file(root, ".aggregation.json").unlink()
    found = surface(root)
    assert set(found.cloud.labels) == {"segment20"}
    assert found.cloud.labels["segment20"].tolist() == [1] * 4 + [0] * 4 + [6] * 4 + [-1] * 5
    assert "aggregation.json missing" in found.repairs[0] and "labels.ply" in found.repairs[0]
    assert any("1 vertices with the unknown NYU40 id 149" in note for note in found.notes)
    scene_file(root, "_vh_clean_2.labels.ply").unlink()
    bare = surface(root)
    assert not bare.cloud.labels and "no labels" in bare.repairs[0]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def shorten(path: Path) -> None:
    path.write_text(json.dumps({"segIndices": raw.SEGMENTS[:-1]}))


def spoil(path: Path) -> None:
    path.write_text('{"segIndices": ["a", null], "segGroups": [{"id": 1}]}')


def shoot_away(path: Path) -> None:
    data = bytearray(path.read_bytes())
    start = data.index(b"end_header\n") + 11 + 16 * 3
    data[start : start + 4] = b"\x00\x00\xc0\x7f"
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("ending", "damage", "message"),
    [
        ("_vh_clean_2.ply", cut, "is not a whole PLY file"),
        ("_vh_clean_2.ply", Path.unlink, "no scene0001_00_vh_clean_2.ply in"),
        ("_vh_clean_2.ply", shoot_away, "vertex 3 is not finite, or far from all others"),
        ("_vh_clean_2.0.010000.segs.json", cut, "is not readable JSON"),
        ("_vh_clean_2.0.010000.segs.json", shorten, "16 segment numbers for the 17 vertices"),
        ("_vh_clean_2.0.010000.segs.json", spoil, "holds other things than numbers"),
        (".aggregation.json", cut, "is not readable JSON"),
        (".aggregation.json", spoil, "a group lacks its id, label or segments"),
        (".aggregation.json", shorten, "no list 'segGroups'"),
    ],
)
def test_damaged_files_are_named(root: Path, ending: str, damage, message: str):
    damage(scene_file(root, ending))
    with pytest.raises(SceneError, match=message) as caught:
        surface(root)
    assert raw.NAME in caught.value.message and caught.value.fix


@pytest.mark.parametrize("text", ["", "id;raw_category\n1;wall\n", "nothing of this kind"])
def test_what_is_no_label_table_is_named(root: Path, text: str):
    (root / "scannetv2-labels.combined.tsv").write_text(text)
    with pytest.raises(SceneError, match="is not ScanNet's label table"):
        plan(root)


def test_a_folder_without_scenes_is_said(tmp_path: Path):
    with pytest.raises(SceneError, match="no ScanNet scenes"):
        plan(tmp_path)
    with pytest.raises(SceneError, match="no folder"):
        plan(tmp_path / "nowhere")


def test_the_fingerprint_follows_files_settings_and_table(root: Path):
    def print_of(**settings) -> str:
        return plan(root, **settings).scenes[0].fingerprint()

    first = print_of()
    assert print_of() == first == print_of(labels=root / "scannetv2-labels.combined.tsv")
    assert print_of(axis_align=True) != first
    raw.write_table(root / "scannetv2-labels.combined.tsv", raw.ROWS[:3])
    second = print_of()
    assert second != first
    scene_file(root, ".txt").write_text("sceneType = Kitchen\n")
    assert print_of() != second


def labelled_cloud(sample_data: Path) -> tuple[PreparedCloud, np.ndarray]:
    found = surface(sample_data / "scannet", frames=False)
    scene = sample_data / "scannet/scans/scene0470_00/scene0470_00_vh_clean_2.labels.ply"
    nyu40 = read_ply(scene).vertex["label"].astype(int)
    return found.cloud, np.array([scannet20.CLASS_OF_NYU40.get(one, -1) for one in nyu40])


def test_a_real_scene_has_the_classes_of_its_labelled_mesh(sample_data: Path):
    cloud, expected = labelled_cloud(sample_data)
    assert len(cloud.coord) == 67465
    assert np.array_equal(cloud.labels["segment20"], expected)
    both = (expected >= 0) & (cloud.labels["segment200"] >= 0)
    assert both.mean() > 0.9
    floor = cloud.normal[expected == 1]
    assert floor[:, 2].mean() > 0.85 and np.allclose(np.linalg.norm(cloud.normal, axis=1), 1, atol=1e-5)


def test_the_real_table_is_todays_and_knows_every_class(sample_data: Path):
    found = plan(sample_data / "scannet")
    assert not found.warnings
    assert [job.split for job in found.scenes] == ["train"]
