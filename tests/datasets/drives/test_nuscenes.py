"""The reader of nuScenes against closed forms of generated drives, and against counts of a real key frame."""

from __future__ import annotations

import json
import pickle
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.kinds import reader_of
from ponderv2.datasets.nuscenes.build import build
from ponderv2.datasets.nuscenes.classes import CATEGORIES, CLASS_NAMES
from ponderv2.datasets.nuscenes.config import NuscenesConfig
from ponderv2.datasets.nuscenes.index import NuscenesIndex
from ponderv2.datasets.nuscenes.splits import official
from ponderv2.errors import PonderError, SceneError
from ponderv2.geometry.cameras import project
from ponderv2.geometry.transforms import transform_points
from ponderv2.scenes.folders import SceneFolders
from ponderv2.scenes.scene import Scene
from ponderv2.store.store import SceneStore
from ponderv2.workflows.config import PrepareConfig
from ponderv2.workflows.prepare import run
from tests.datasets.drives.nuscenes_drives import (
    CAMERAS,
    INTRINSICS,
    LANDMARKS,
    SAMPLE,
    START,
    Drives,
    ego_pose,
    sensor_pose,
    write_drives,
)

COUNTS = {
    "CAM_FRONT": (3056, 2986),
    "CAM_FRONT_RIGHT": (3076, 2938),
    "CAM_FRONT_LEFT": (3700, 3700),
    "CAM_BACK": (4822, 4274),
    "CAM_BACK_LEFT": (4091, 4069),
    "CAM_BACK_RIGHT": (3370, 3007),
}
"""Points inside the image of each camera, farther than 3 m and within 50 m, by an independent script."""


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> Drives:
    return write_drives(tmp_path_factory.mktemp("nuscenes"))


@pytest.fixture
def own(tmp_path: Path) -> Drives:
    """Drives that a test may damage."""
    return write_drives(tmp_path / "nuscenes", ("scene-0061",), n_samples=3)


def rewrite(drives: Drives, table: str, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Change a table in its file."""
    path = drives.root / drives.version / f"{table}.json"
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))


def opened(drives: Drives) -> SceneFolders:
    return open_folder(drives.root)


def first(drives: Drives, number: int = 0) -> Scene:
    folder = opened(drives)
    return folder.read(folder.names("train")[number], "train")


def test_projection_counts_of_the_real_key_frame(sample_data: Path) -> None:
    root = sample_data / "nuscenes"
    folder = open_folder(root)
    scene = folder.read(folder.names("train")[0], "train")
    points = scene.cloud.coord.double()
    planar = points[:, :2].norm(dim=1)
    found = {}
    for frame in scene.frames:
        in_camera = transform_points(frame.camera.world_to_camera.double(), points)
        pixel, depth = project(in_camera, frame.camera.intrinsics.double())
        corner = torch.tensor([frame.camera.width - 1.0, frame.camera.height - 1.0])
        inside = (pixel > 0).all(dim=1) & (pixel < corner).all(dim=1) & (depth > 1e-5) & (planar > 3.0)
        found[frame.sensor] = (int(inside.sum()), int((inside & (planar < 50.0)).sum()))
    assert found == COUNTS
    assert scene.boxes is not None and len(scene.boxes) == 69
    inside = scene.boxes.contains(scene.cloud.coord).sum(dim=1).double()
    stored = scene.boxes.fields["n_lidar"].double()
    assert float(torch.corrcoef(torch.stack([inside, stored]))[0, 1]) > 0.999
    assert scene.frames[0].read_color().shape == (900, 1600, 3)


def test_every_sweep_measures_the_landmarks_where_they_are(drives: Drives) -> None:
    scene = first(drives, 3)
    assert [round(1000 * (sweep.time or 0.0)) for sweep in scene.sweeps[:10]] == [-50 * i for i in range(10)]
    when = START + 3 * SAMPLE
    global_to_lidar = np.linalg.inv(ego_pose(when) @ sensor_pose("LIDAR_TOP"))
    expected = drives.landmarks @ global_to_lidar[:3, :3].T + global_to_lidar[:3, 3]
    assert np.abs(scene.cloud.coord.numpy() - expected).max() < 1e-4
    for sweep in scene.sweeps:
        assert np.abs(sweep.read_in_world().coord.numpy() - expected).max() < 2e-4
    far = np.abs(scene.sweeps[9].read().coord.numpy() - expected).max()
    assert far > 1.0, "the vehicle moved: without its motion the landmarks would be elsewhere"


def test_cameras_see_the_landmarks_from_where_they_were_at_their_own_time(drives: Drives) -> None:
    scene = first(drives, 2)
    when = START + 2 * SAMPLE
    for frame in scene.frames:
        lag = CAMERAS[frame.sensor]
        assert frame.time == pytest.approx(lag, abs=1e-9)
        pose = ego_pose(when + round(1e6 * lag)) @ sensor_pose(frame.sensor)
        in_camera = (drives.landmarks - pose[:3, 3]) @ pose[:3, :3]
        expected = in_camera @ np.array(INTRINSICS).T
        ours = transform_points(frame.camera.world_to_camera.double(), scene.cloud.coord.double())
        pixel, depth = project(ours, frame.camera.intrinsics.double())
        front = in_camera[:, 2] > 2.0
        assert np.abs(depth.numpy() - in_camera[:, 2]).max() < 1e-3
        assert np.abs(pixel.numpy() - expected[:, :2] / expected[:, 2:])[front].max() < 0.02


def test_boxes_have_the_place_heading_and_velocity_of_their_tracks(drives: Drives) -> None:
    scene = first(drives, 2)
    assert scene.boxes is not None
    when = START + 2 * SAMPLE
    global_to_lidar = np.linalg.inv(ego_pose(when) @ sensor_pose("LIDAR_TOP"))
    there = [track for track in drives.tracks if 2 in track.samples]
    assert len(scene.boxes) == len(there) == 3
    for index, track in enumerate(there):
        place = global_to_lidar[:3, :3] @ track.at(when) + global_to_lidar[:3, 3]
        assert np.abs(scene.boxes.center[index].numpy() - place).max() < 1e-4
        heading = global_to_lidar[:3, :3] @ (np.cos(track.yaw), np.sin(track.yaw), 0.0)
        yaw = float(np.arctan2(heading[1], heading[0]))
        assert abs(np.angle(np.exp(1j * (float(scene.boxes.yaw[index]) - yaw)))) < 1e-5
    assert scene.boxes.size[0].tolist() == pytest.approx([4.5, 1.9, 1.6])
    turned = global_to_lidar[:3, :3] @ drives.tracks[0].velocity
    assert np.abs(scene.boxes.velocity[0].numpy() - turned).max() < 1e-4
    assert [int(one) for one in scene.boxes.category] == [0, 3, -1]
    assert scene.boxes.fields["n_lidar"].tolist() == [5, 5, 5]
    assert scene.boxes.fields["attribute"].tolist() == [5, -1, -1]


def test_velocity_is_one_sided_at_the_ends_of_a_track_and_unknown_over_long_gaps(drives: Drives) -> None:
    index = NuscenesIndex.of(drives.root / drives.version)
    samples = index.samples(frozenset({"scene-0061"}))
    ends = index.annotations(samples[0])
    assert np.abs(ends.velocity[0] - drives.tracks[0].velocity).max() < 1e-6
    assert np.isnan(ends.velocity[1]).all(), "the next annotation is 2.5 s away"
    short = index.annotations(samples[1])
    assert np.abs(short.velocity[1] - drives.tracks[1].velocity).max() < 1e-6
    assert np.isnan(index.annotations(samples[2]).velocity[2]).all(), "annotated once"


def test_labels_are_the_sixteen_classes_of_the_benchmark(drives: Drives) -> None:
    segment = first(drives).cloud.labels["segment"]
    by_category = {name: int(segment[number]) for number, name in enumerate(CATEGORIES)}
    assert by_category["vehicle.bus.bendy"] == by_category["vehicle.bus.rigid"] == CLASS_NAMES.index("bus")
    assert (
        by_category["human.pedestrian.stroller"] == by_category["noise"] == by_category["vehicle.ego"] == -1
    )
    assert by_category["static.vegetation"] == 15 and by_category["movable_object.barrier"] == 0
    assert sorted(set(by_category.values())) == list(range(-1, 16))
    folder = opened(drives)
    bare = folder.read(folder.names("train")[0], "train", labels=False)
    assert bare.boxes is None and not bare.cloud.labels


def test_splits_are_those_of_the_data_set() -> None:
    sizes = {name: len(official(name)) for name in ("train", "val", "test", "train_detect", "mini_train")}
    assert sizes == {"train": 700, "val": 150, "test": 150, "train_detect": 350, "mini_train": 8}
    assert not official("train") & official("val") and not official("train") & official("test")
    assert official("mini_val") == {"scene-0103", "scene-0916"}


def test_own_splits_replace_those_of_the_data_set(own: Drives) -> None:
    (own.root / own.version / "splits.json").write_text(json.dumps({"val": ["scene-0061"], "train": []}))
    folder = opened(own)
    assert folder.info.splits == ("val",) and len(folder.names("val")) == 3


def test_prepared_scenes_are_those_that_are_read_in_place(drives: Drives, tmp_path: Path) -> None:
    source = NuscenesConfig(path=drives.root, sweeps=3)
    result = run(PrepareConfig(source=source, out=tmp_path / "out", workers=1))
    assert result.n_prepared == 12 and result.n_failed == 0
    store, folder = SceneStore.open(tmp_path / "out"), opened(drives)
    for split in ("train", "val"):
        assert store.names(split) == folder.names(split)
    name = store.names("val")[4]
    stored, there = store.read(name, "val"), folder.read(name, "val")
    assert torch.equal(stored.cloud.coord, there.cloud.coord)
    assert torch.equal(stored.cloud.labels["segment"], there.cloud.labels["segment"])
    assert torch.equal(stored.cloud.fields["intensity"], there.cloud.fields["intensity"])
    assert stored.boxes is not None and there.boxes is not None
    for key, values in there.boxes.arrays.items():
        assert torch.equal(
            torch.nan_to_num(stored.boxes.arrays[key].double()), torch.nan_to_num(values.double())
        )
    assert [one.id for one in stored.sweeps] == [one.id for one in there.sweeps[:3]]
    assert torch.allclose(
        stored.sweeps[2].read_in_world().coord, there.sweeps[2].read_in_world().coord, atol=1e-4
    )
    assert torch.equal(stored.frames[1].read_color(), there.frames[1].read_color())
    again = run(PrepareConfig(source=source, out=tmp_path / "out", workers=1))
    assert again.n_skipped == 12


def test_the_index_is_built_once_and_again_when_a_table_changes(own: Drives) -> None:
    tables = own.root / own.version
    index = NuscenesIndex.of(tables)
    stamp = index.path.stat().st_mtime_ns
    assert NuscenesIndex.of(tables).path == index.path and index.path.stat().st_mtime_ns == stamp
    rewrite(own, "sample_annotation", lambda rows: rows.pop())
    assert NuscenesIndex.of(tables).path != index.path


def test_large_tables_count_with_sizes_and_pieces(own: Drives, monkeypatch: pytest.MonkeyPatch) -> None:
    from ponderv2.datasets.nuscenes import index as module

    tables = own.root / own.version
    monkeypatch.setattr(module, "SMALL", 0)
    monkeypatch.setattr(module, "PIECE", 64)
    monkeypatch.setattr(module, "PARTS", 8)
    known = NuscenesIndex.of(tables).path
    assert NuscenesIndex.of(tables).path == known
    path = tables / "sample_data.json"
    path.write_text(path.read_text() + " ")
    longer = NuscenesIndex.of(tables).path
    assert longer != known
    path.write_text(path.read_text()[:-1] + "\n")
    assert NuscenesIndex.of(tables).path not in (known, longer), "the last piece differs"


def test_the_folder_can_be_sent_to_another_process(drives: Drives) -> None:
    folder = pickle.loads(pickle.dumps(opened(drives)))
    assert len(folder.read(folder.names("val")[0], "val").cloud) == LANDMARKS


def test_every_nth_key_frame_and_chosen_drives(drives: Drives) -> None:
    reader = reader_of(NuscenesConfig(path=drives.root, scenes=("scene-01*",), every=2))
    assert [one.name.split("_")[0] for one in reader.scenes] == [f"scene-0103/{i:03d}" for i in (0, 2, 4)]


def test_a_missing_image_and_a_missing_sweep_are_left_out_and_reported(own: Drives) -> None:
    (own.root / own.tables["sample_data"][0]["filename"]).rename(own.root / "elsewhere")
    lidar = next((own.root / "sweeps/LIDAR_TOP").iterdir())
    lidar.unlink()
    image = next(iter(sorted((own.root / "samples/CAM_FRONT").iterdir())))
    image.unlink()
    reader = reader_of(NuscenesConfig(path=own.root))
    assert any("1 of 3 files of LIDAR_TOP are missing" in one for one in reader.warnings)
    assert any("1 of 3 files of CAM_FRONT are missing" in one for one in reader.warnings)
    folder = opened(own)
    names = folder.names("train")
    with pytest.raises(SceneError, match="cannot read the scan"):
        folder.read(names[0], "train")
    scene = folder.read(names[2], "train")
    assert all(sweep.path.is_file() for sweep in scene.sweeps) and len(scene.frames) == 2


def test_a_scan_of_odd_size_is_refused_with_its_size(own: Drives) -> None:
    path = own.root / own.tables["sample_data"][0]["filename"]
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(SceneError, match="3997 bytes are no number of points of 20 bytes"):
        first(own)


@pytest.mark.parametrize("values", [np.zeros((0, 5)), np.full((4, 5), np.nan)])
def test_a_scan_without_points_is_refused(own: Drives, values: np.ndarray) -> None:
    path = own.root / own.tables["sample_data"][0]["filename"]
    values.astype("<f4").tofile(path)
    with pytest.raises(SceneError, match=r"is empty|no points that are finite"):
        first(own)


def test_points_that_are_not_finite_go_with_their_labels(own: Drives) -> None:
    path = own.root / own.tables["sample_data"][0]["filename"]
    rows = np.fromfile(path, "<f4").reshape(-1, 5)
    rows[3, 1] = np.inf
    rows.tofile(path)
    cloud = first(own).cloud
    assert len(cloud) == LANDMARKS - 1 and len(cloud.labels["segment"]) == LANDMARKS - 1
    expected = np.delete(np.arange(LANDMARKS) % 32, 3)
    assert cloud.fields["ring"].tolist() == expected.tolist()


def test_labels_of_another_length_are_refused(own: Drives) -> None:
    path = own.root / own.tables["lidarseg"][0]["filename"]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SceneError, match="holds 199 labels, its scan has 200 points"):
        first(own)


def test_tables_of_different_versions_are_refused(own: Drives, tmp_path: Path) -> None:
    other = write_drives(tmp_path / "other", ("scene-0103",))
    rewrite(other, "scene", lambda rows: rows)

    def renamed(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["token"] = row["token"][::-1]

    rewrite(own, "sample", renamed)
    with pytest.raises(SceneError, match="different versions"):
        opened(own)


def test_a_token_that_leads_nowhere_is_counted_and_its_record_left_out(own: Drives) -> None:
    rewrite(own, "sample_annotation", lambda rows: rows[0].update(instance_token="f" * 32))
    rewrite(own, "sample_data", lambda rows: rows[5].update(ego_pose_token="nowhere"))
    reader = reader_of(NuscenesConfig(path=own.root))
    text = " ".join(reader.warnings)
    assert "annotations name an instance that is not in instance.json" in text
    assert "measurements name an ego pose that is not in ego_pose.json" in text


@pytest.mark.parametrize("table", ["sample", "calibrated_sensor", "ego_pose", "sample_data", "instance"])
def test_a_record_that_is_there_twice_counts_once_and_is_reported(own: Drives, table: str) -> None:
    name = opened(own).names("train")[1]
    before = opened(own).read(name, "train")
    rewrite(own, table, lambda rows: rows.insert(3, rows[1]))
    reader = reader_of(NuscenesConfig(path=own.root))
    expected = f"1 records of {table}.json have the token of an earlier one; they are left out"
    assert any(expected in one for one in reader.warnings)
    after = opened(own).read(name, "train")
    assert torch.equal(after.cloud.coord, before.cloud.coord) and len(after.sweeps) == len(before.sweeps)
    assert after.boxes is not None and before.boxes is not None and len(after.boxes) == len(before.boxes)


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("log", {"location": "elsewhere"}),
        ("scene", {"name": "scene-0103"}),
        ("sample", {"timestamp": START + 77}),
        ("sensor", {"channel": "CAM_LEFT"}),
        ("calibrated_sensor", {"translation": [9.0, 9.0, 9.0]}),
        ("ego_pose", {"translation": [9.0, 9.0, 9.0]}),
        ("sample_data", {"filename": "samples/LIDAR_TOP/other.pcd.bin"}),
        ("sample_data", {"timestamp": START + 77}),
        ("lidarseg", {"filename": "lidarseg/other.bin"}),
        ("category", {"name": "animal"}),
        ("instance", {"category_token": ""}),
        ("attribute", {"name": "cycle.with_rider"}),
        ("sample_annotation", {"size": [9.0, 9.0, 9.0]}),
    ],
)
def test_of_records_with_one_token_the_first_is_in_the_index(
    own: Drives, tmp_path: Path, table: str, change: dict[str, Any]
) -> None:
    """A later record that says something else, of every record of a table, changes no row of the index."""
    before, rows = _index_rows(own, tmp_path / "before"), _rows_of(own, table)
    rewrite(own, table, lambda every: every.extend([row | change for row in every]))
    assert _index_rows(own, tmp_path / "after") == before
    number = len([row for row in rows if "RADAR" not in str(row.get("filename"))])
    expected = f"{number} records of {table}.json have the token of an earlier one"
    assert any(expected in one for one in reader_of(NuscenesConfig(path=own.root)).warnings)


def _rows_of(drives: Drives, table: str) -> list[dict[str, Any]]:
    return json.loads((drives.root / drives.version / f"{table}.json").read_text())


def _index_rows(drives: Drives, path: Path) -> list[str]:
    """Every row of the index as SQL, but for what it reports."""
    build(drives.root / drives.version, path)
    with closing(sqlite3.connect(path)) as database:
        return [one for one in database.iterdump() if '"meta"' not in one]


def test_tables_may_begin_with_a_byte_order_mark(own: Drives) -> None:
    expected = first(own).cloud.coord
    for name in ("sample", "sample_data", "ego_pose"):
        path = own.root / own.version / f"{name}.json"
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert torch.equal(first(own).cloud.coord, expected)


def test_labels_of_no_key_frame_and_unknown_attributes_are_counted(own: Drives) -> None:
    rewrite(own, "lidarseg", lambda rows: rows[0].update(sample_data_token="f" * 32))
    rewrite(own, "sample_annotation", lambda rows: rows[0].update(attribute_tokens=["e" * 32]))
    text = " ".join(reader_of(NuscenesConfig(path=own.root)).warnings)
    assert "1 of 3 labels of lidarseg.json name a key frame that is not in sample_data.json ('ffff" in text
    assert "annotations name an attribute that is not in attribute.json ('eeee" in text


def test_times_out_of_order_are_reported_and_samples_sorted_by_time(own: Drives) -> None:
    def swapped(rows: list[dict[str, Any]]) -> None:
        rows[0]["timestamp"], rows[1]["timestamp"] = rows[1]["timestamp"], rows[0]["timestamp"]

    rewrite(own, "sample", swapped)
    reader = reader_of(NuscenesConfig(path=own.root))
    assert any("timestamps are out of order" in one for one in reader.warnings)
    stamps = [one.timestamp for one in NuscenesIndex.of(own.root / own.version).samples()]
    assert stamps == sorted(stamps)


def test_boxes_that_are_not_finite_are_left_out(own: Drives) -> None:
    rewrite(own, "sample_annotation", lambda rows: rows[0].update(translation=[float("nan"), 0.0, 0.0]))
    rewrite(own, "sample_annotation", lambda rows: rows[3].update(size=[1.0, 0.0, 1.0]))
    whole = len([track for track in own.tracks if 0 in track.samples])
    folder = opened(own)
    scene = folder.read(folder.names("train")[0], "train")
    assert scene.boxes is not None and len(scene.boxes) == whole - 1
    assert bool(torch.isfinite(scene.boxes.center).all())


def test_intrinsics_of_another_image_size_leave_the_camera_out(own: Drives) -> None:
    def halved(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["camera_intrinsic"]:
                row["camera_intrinsic"] = (np.array(INTRINSICS) * [[0.5], [0.5], [1.0]]).tolist()

    rewrite(own, "calibrated_sensor", halved)
    folder = opened(own)
    assert not folder.read(folder.names("train")[0], "train").frames
    assert any("intrinsics are those of another image size" in one for one in folder.warnings("train"))


@pytest.mark.parametrize("name", ["../../secret.bin", "/etc/passwd", "samples/../../x", "", 5, "a\0b"])
def test_names_of_files_that_lead_out_of_the_folder_are_left_out_and_reported(own: Drives, name: Any) -> None:
    rewrite(own, "sample_data", lambda rows: rows[5].update(filename=name))
    rewrite(own, "lidarseg", lambda rows: rows[1].update(filename=name))
    reader = reader_of(NuscenesConfig(path=own.root))
    text = " ".join(reader.warnings)
    assert "measurements name a file that is not below the folder" in text
    assert "labels name a file that is not below the folder" in text
    assert all(isinstance(one[2], str) for one in NuscenesIndex.of(own.root / own.version).files())


@pytest.mark.parametrize(
    ("table", "text", "words"),
    [
        ("sample", "[]", "different versions"),
        ("scene", '[{"token": ' + "9" * 5000 + "}]", "scene.json"),
        ("log", '[{"token": "a", "location": ' + "9" * 5000 + "}]", "log.json"),
        ("scene", '[{"token": "a", "name": "\\ud800", "log_token": ""}]', "no text"),
    ],
)
def test_findings_of_fuzzing_stay_fixed(own: Drives, table: str, text: str, words: str) -> None:
    (own.root / own.version / f"{table}.json").write_text(text)
    with pytest.raises(SceneError, match=words):
        opened(own)


def test_tables_whose_files_all_lie_elsewhere_are_refused(own: Drives) -> None:
    def absolute(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["filename"] = f"/data/{row['filename']}"

    rewrite(own, "sample_data", absolute)
    with pytest.raises(SceneError, match="not below the folder of the data"):
        opened(own)


def test_large_tables_show_their_progress(own: Drives, monkeypatch: pytest.MonkeyPatch) -> None:
    from ponderv2.datasets.nuscenes import build

    monkeypatch.setattr(build, "LARGE", 0)
    rewrite(own, "log", lambda rows: rows[0].update(location="of this test"))  # else the index may be there
    seen: dict[str, list[int]] = {}

    def track(iterable: Any, label: str, total: int | None) -> Any:
        seen[label] = [total or 0, 0]
        for one in iterable:
            seen[label][1] += 1
            yield one

    reader_of(NuscenesConfig(path=own.root), track)
    total, count = seen["index of sample_data"]
    assert count == len(own.tables["sample_data"]) and 0.5 < total / count < 2.0


def test_a_file_that_is_replaced_changes_the_fingerprint_of_its_scene_alone(own: Drives) -> None:
    scenes = reader_of(NuscenesConfig(path=own.root, sweeps=1)).scenes
    before = [one.fingerprint() for one in scenes]
    assert before == [one.fingerprint() for one in scenes]
    path = own.root / own.tables["sample_data"][0]["filename"]
    np.fromfile(path, "<f4")[::-1].tofile(path)
    after = [one.fingerprint() for one in scenes]
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True, True]


def test_an_index_of_another_version_or_a_damaged_one_is_not_used(
    own: Drives, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ponderv2.datasets.nuscenes import index as module

    tables = own.root / own.version
    rewrite(own, "log", lambda rows: rows[0].update(location="of the other test"))
    first_index = NuscenesIndex.of(tables)
    monkeypatch.setattr(module, "FORMAT", -1)
    assert NuscenesIndex.of(tables).path != first_index.path
    monkeypatch.undo()
    first_index.path.chmod(0o644)
    first_index.path.write_bytes(b"not SQLite at all" * 100)
    with pytest.raises(SceneError, match="is damaged") as caught:
        NuscenesIndex.of(tables).samples()
    assert f"delete {first_index.path}" in str(caught.value.fix)


@pytest.mark.parametrize(
    "table", ["scene", "sample", "sample_data", "ego_pose", "calibrated_sensor", "category"]
)
def test_a_damaged_table_is_named(own: Drives, table: str) -> None:
    path = own.root / own.version / f"{table}.json"
    text = path.read_text()
    for damaged in (text[: len(text) // 2], "{}", "[1, 2]", '[{"token": 5}]', "", "<!doctype html>"):
        path.write_text(damaged)
        with pytest.raises(PonderError, match=f"{table}.json|different versions|lacks"):
            opened(own)


def test_a_folder_without_tables_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="no tables of nuScenes") as caught:
        reader_of(NuscenesConfig(path=tmp_path))
    assert "sample_data.json" in str(caught.value.fix)
