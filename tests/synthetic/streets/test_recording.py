"""A recorded street: tables, files and numbers against the official conventions and independent counts."""

from __future__ import annotations

import hashlib
import io
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ponderv2.synthetic.streets.boxes import Annotation, tracked, visibility_of
from ponderv2.synthetic.streets.camera import StreetView
from ponderv2.synthetic.streets.classes import LIDARSEG
from ponderv2.synthetic.streets.config import StreetConfig
from ponderv2.synthetic.streets.names import SCENE_NAMES, VERSION, plan
from ponderv2.synthetic.streets.recording import Recorder
from ponderv2.synthetic.streets.street import make_street
from ponderv2.synthetic.streets.tables import common_tables, write_tables

SMALL = StreetConfig(key_frames=2, width=64, height=36, columns=240, traffic=0.4, camera_rate=12)


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder(1, "scene-0001", SMALL, Path())


@pytest.fixture(scope="module")
def root(tmp_path_factory, recorder: Recorder) -> Path:
    root = tmp_path_factory.mktemp("streets")
    recorder.root = root
    found = recorder.run()
    write_tables(root, [found.records.tables])
    return root


@pytest.fixture(scope="module")
def tables(root: Path) -> dict[str, list[dict]]:
    return {path.stem: json.loads(path.read_text()) for path in (root / VERSION).glob("*.json")}


def by_token(records: list[dict]) -> dict[str, dict]:
    found = {record["token"]: record for record in records}
    assert len(found) == len(records)
    return found


def matrix(record: dict) -> np.ndarray:
    """4x4 of translation and rotation, by the formula of a quaternion w, x, y, z."""
    w, x, y, z = record["rotation"]
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = record["translation"]
    return pose


def key_points(root: Path, tables: dict[str, list[dict]], sample: str) -> np.ndarray:
    """Points of the key frame's revolution in the world, through the tables alone."""
    sensors = {one["token"]: one["channel"] for one in tables["sensor"]}
    calibrated, poses = by_token(tables["calibrated_sensor"]), by_token(tables["ego_pose"])
    for record in tables["sample_data"]:
        mount = calibrated[record["calibrated_sensor_token"]]
        if (
            record["sample_token"] == sample
            and record["is_key_frame"]
            and sensors[mount["sensor_token"]] == "LIDAR_TOP"
        ):
            rows = np.fromfile(root / record["filename"], "<f4").reshape(-1, 5).astype(float)
            pose = matrix(poses[record["ego_pose_token"]]) @ matrix(mount)
            return rows[:, :3] @ pose[:3, :3].T + pose[:3, 3]
    raise AssertionError("no key frame")


def test_every_token_leads_to_a_record(tables) -> None:
    names = {**{name: name for name in tables}, "first_sample": "sample", "last_sample": "sample"}
    names |= {"first_annotation": "sample_annotation", "last_annotation": "sample_annotation"}
    known = {name: by_token(records) for name, records in tables.items()}
    n_followed = 0
    for name, records in tables.items():
        for record in records:
            for key, value in record.items():
                if key in ("prev", "next"):
                    assert value == "" or value in known[name]
                elif key.endswith("_token") or key.endswith("_tokens"):
                    table = names[key.removesuffix("s").removesuffix("_token")]
                    values = value if isinstance(value, list) else [value]
                    assert all(one in known[table] for one in values), (name, key)
                    n_followed += len(values)
    assert n_followed > 300


def test_chains_run_in_the_order_of_time(tables) -> None:
    stamps = {one["token"]: one["timestamp"] for one in tables["sample"]}
    for name, stamp in (
        ("sample", lambda record: record["timestamp"]),
        ("sample_data", lambda record: record["timestamp"]),
        ("sample_annotation", lambda record: stamps[record["sample_token"]]),
    ):
        known = by_token(tables[name])
        for record in known.values():
            if record["next"]:
                after = known[record["next"]]
                assert after["prev"] == record["token"] and stamp(after) > stamp(record)
    assert sum(not record["prev"] for record in tables["sample_data"]) == 7


def test_sensors_have_their_rates(tables) -> None:
    """20 revolutions and 12 images a second, between the first and the last key frame; all within 50 ms."""
    stamps, keys = defaultdict(list), defaultdict(list)
    for record in tables["sample_data"]:
        channel = record["filename"].split("/")[1]
        stamps[channel].append(record["timestamp"])
        if record["is_key_frame"]:
            keys[record["sample_token"]].append(record["timestamp"])
    for channel, found in stamps.items():
        steps = np.diff(found)
        assert (abs(steps - (50_000 if channel == "LIDAR_TOP" else 83_333)) <= 3).all(), channel
    assert all(len(found) == 7 and max(found) - min(found) < 50_000 for found in keys.values())


def test_a_measurement_between_key_frames_belongs_to_the_one_that_follows(tables) -> None:
    samples = sorted(one["timestamp"] for one in tables["sample"])
    stamps = {one["token"]: one["timestamp"] for one in tables["sample"]}
    for record in tables["sample_data"]:
        if not record["is_key_frame"]:
            assert stamps[record["sample_token"]] == min(one for one in samples if one > record["timestamp"])


def test_stored_counts_are_those_of_the_points_in_the_boxes(root: Path, tables) -> None:
    """Boxes as the tables have them, points through both poses, in a frame turned by hand."""
    n_points = 0
    for sample in tables["sample"]:
        points = key_points(root, tables, sample["token"])
        for box in (one for one in tables["sample_annotation"] if one["sample_token"] == sample["token"]):
            local = (points - box["translation"]) @ matrix(box)[:3, :3]
            width, length, height = box["size"]
            inside = (np.abs(local) <= np.array([length, width, height]) / 2).all(axis=1).sum()
            assert inside == box["num_lidar_pts"]
            n_points += inside
    assert n_points > 100


def test_labels_of_points_in_boxes_are_their_categories(root: Path, tables) -> None:
    """Nearly all: a hand in the box of a neighbour is something else, as is a bicycle in its rack."""
    categories, instances = by_token(tables["category"]), by_token(tables["instance"])
    labels = {one["sample_data_token"]: root / one["filename"] for one in tables["lidarseg"]}
    sample = tables["sample"][1]["token"]
    points = key_points(root, tables, sample)
    data = next(
        one for one in tables["sample_data"] if one["sample_token"] == sample and one["token"] in labels
    )
    found = np.fromfile(labels[data["token"]], np.uint8)
    assert len(found) == len(points) and found.max() < len(LIDARSEG)
    same = total = 0
    for box in (one for one in tables["sample_annotation"] if one["sample_token"] == sample):
        index = categories[instances[box["instance_token"]]["category_token"]]["index"]
        if LIDARSEG[index] == "static_object.bicycle_rack":
            continue
        local = (points - box["translation"]) @ matrix(box)[:3, :3]
        width, length, height = box["size"]
        inside = (np.abs(local) <= np.array([length, width, height]) / 2).all(axis=1) & (
            local[:, 2] > 0.1 - height / 2
        )
        same, total = same + (found[inside] == index).sum(), total + inside.sum()
    assert total > 50 and same > 0.93 * total


def test_velocities_of_the_boxes_are_those_of_the_tracks(recorder: Recorder, tables) -> None:
    """Difference of neighbouring boxes over half a second against the way along the track."""
    boxes, moving = by_token(tables["sample_annotation"]), 0
    instances = {
        recorder.records.token("instance", number): actor
        for number, actor in enumerate(recorder.street.actors)
    }
    for box in boxes.values():
        if not box["next"]:
            continue
        velocity = np.subtract(boxes[box["next"]]["translation"], box["translation"]) / 0.5
        actor = instances[box["instance_token"]]
        stamp = next(one["timestamp"] for one in tables["sample"] if one["token"] == box["sample_token"])
        middle = (stamp - recorder.start) * 1e-6 + 0.25
        speed = actor.track.speed(middle)
        assert (
            abs(np.hypot(*velocity[:2]) - speed) < 0.15 * speed + 0.4
        )  # the LiDAR meets it up to 50 ms later
        moving += speed > 1.0
    assert moving > 1


def test_files_are_those_of_the_tables(root: Path, tables) -> None:
    for record in tables["sample_data"]:
        path = root / record["filename"]
        if record["fileformat"] == "jpg":
            assert Image.open(path).size == (record["width"], record["height"]) == (64, 36)
        else:
            rows = np.fromfile(path, "<f4").reshape(-1, 5)
            assert np.isfinite(rows).all() and (rows[:, 3] >= 0).all() and (rows[:, 3] <= 255).all()
            assert set(np.unique(rows[:, 4])) <= set(range(32))
    named = {record["filename"] for name in ("sample_data", "lidarseg", "map") for record in tables[name]}
    stored = {
        str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.suffix != ".json"
    }
    assert stored == named


def test_the_vehicle_drives_on_the_road_of_its_map(root: Path, tables) -> None:
    mask = np.array(Image.open(io.BytesIO((root / tables["map"][0]["filename"]).read_bytes())))
    for pose in tables["ego_pose"]:
        x, y, _ = pose["translation"]
        assert mask[mask.shape[0] - round(y / 0.1), round(x / 0.1)] == 255
    assert 0.01 < (mask > 0).mean() < 0.6


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(root: Path, tmp_path: Path) -> None:
    again = Recorder(1, "scene-0001", SMALL, tmp_path)
    again._headers()
    again._lidar(500_000)  # what was measured before does not matter
    again._lidar(0)
    again._images(500_000)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 9
    for path in written:
        assert digest(path) == digest(root / path.relative_to(tmp_path))
    other = make_street(np.random.default_rng([1, 1]), SMALL)
    assert len(other.actors) != len(again.street.actors)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_plan_of_a_street_does_not_depend_on_how_many_there_are() -> None:
    assert plan(3, 5) == plan(40, 5)[:3]
    split = [one for one, _ in plan(40, 5)]
    assert split.count("val") == 8
    assert all(name in SCENE_NAMES[one] for one, name in plan(40, 5))
    assert {one: len(names) for one, names in SCENE_NAMES.items()} == {"train": 700, "val": 150}
    with pytest.raises(ValueError, match="val has 150 names"):
        plan(800, 5)


def test_categories_have_the_official_numbers() -> None:
    found = {one["name"]: one["index"] for one in common_tables()["category"]}
    official = {
        "vehicle.car": 17,
        "human.pedestrian.adult": 2,
        "movable_object.barrier": 9,
        "flat.terrain": 27,
    }
    official |= {
        "movable_object.trafficcone": 12,
        "vehicle.truck": 23,
        "static.vegetation": 30,
        "vehicle.ego": 31,
    }
    assert len(found) == 32 and official.items() <= found.items()


def test_visibility_is_the_share_of_pixels_that_nothing_covers() -> None:
    def view(shown: int, alone: int) -> StreetView:
        actor = np.full((4, 5), -1)
        actor.reshape(-1)[:shown] = 7
        return StreetView(np.zeros((4, 5, 3)), np.ones((4, 5)), np.zeros((4, 5), int), actor, {7: alone})

    assert [visibility_of(7, [view(shown, 10)]) for shown in (0, 4, 5, 7, 9, 10)] == [1, 1, 2, 3, 4, 4]
    assert visibility_of(7, [view(10, 10), view(0, 10)]) == 2
    assert visibility_of(3, [view(10, 10)]) == 1


def test_tracks_start_and_end_with_a_point_and_have_no_long_gaps() -> None:
    def at(frame: int, n_points: int) -> Annotation:
        return Annotation(0, frame, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 0.0, n_points, 4, None)

    found = [at(frame, n) for frame, n in enumerate((0, 3, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0))]
    assert [one.key_frame for one in tracked(found)] == [1, 2, 3, 4, 11]
