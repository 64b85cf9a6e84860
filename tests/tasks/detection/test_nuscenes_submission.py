"""Result files of the nuScenes detection benchmark: round trips, the published format, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.nuscenes.classes import ATTRIBUTES, DETECTION_NAMES
from ponderv2.datasets.nuscenes.config import NuscenesConfig
from ponderv2.datasets.nuscenes.world_boxes import KeyPose, key_poses, key_truths
from ponderv2.errors import OutputError
from ponderv2.evaluation.nuscenes_detection import DetectionSample, DetectionScore, detection_score
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.detections import Detections
from ponderv2.tasks.detection.nuscenes_submission import (
    MOST_BOXES,
    SubmissionMeta,
    read_submission,
    write_submission,
)
from tests.datasets.drives.crowded_drives import write_crowd

META = SubmissionMeta(use_camera=True, use_lidar=True)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> NuscenesConfig:
    return write_crowd(tmp_path_factory.mktemp("crowd") / "data", 1, n_samples=3)


def annotated(boxes: Boxes) -> Detections:
    """Boxes that the benchmark expects, as predictions."""
    counted = (boxes.category >= 0) & (boxes.fields["n_lidar"] + boxes.fields["n_radar"] > 0)
    there = boxes.take(counted)
    return Detections(there, torch.linspace(1.0, 0.5, len(there)))


def round_trip(config: NuscenesConfig, split: str, path: Path) -> DetectionScore:
    """The score of what the reader gives, in single precision and the frame of the scene, as predictions."""
    folder = open_folder(config.path)
    poses, truths = key_poses(config, split), key_truths(config, split)
    found = {name: annotated(folder.read(name, split).boxes or Boxes.empty()) for name in folder.names(split)}
    assert list(found) == list(poses) == list(truths)
    write_submission(path, [(poses[name], one) for name, one in found.items()], META)
    submission = read_submission(path, [one.token for one in poses.values()])
    assert submission.meta == META
    return detection_score(submission.samples(truths.values()))


def test_annotated_boxes_come_back_with_score_one_and_no_errors(
    crowd: NuscenesConfig, tmp_path: Path
) -> None:
    score = round_trip(crowd, "mini_val", tmp_path / "submission.json")
    assert score.nds == pytest.approx(1.0, abs=1e-4) and score.mean_ap == pytest.approx(1.0, abs=1e-9)
    assert max(score.mean_errors.values()) < 1e-4
    assert score.warnings == ()


def test_annotated_boxes_of_the_real_key_frame_come_back(sample_data: Path, tmp_path: Path) -> None:
    config = NuscenesConfig(path=sample_data / "nuscenes")
    score = round_trip(config, "train", tmp_path / "submission.json")
    there = score.n_true > 0
    assert int(there.sum()) >= 4
    assert torch.equal(score.n_true, score.n_found)
    torch.testing.assert_close(score.ap[there], torch.ones_like(score.ap[there]))
    translation, size, orientation = score.errors[there][:, :3].nan_to_num().max(dim=0).values.tolist()
    assert max(translation, size) < 1e-5
    assert orientation < 1e-3  # the boxes of this sample stand upright in the frame of the LiDAR
    assert float(score.ap[~there].sum()) == 0.0 and score.warnings == ()


@pytest.fixture
def pose() -> KeyPose:
    """The vehicle stands at 100, 200 and looks along x; its LiDAR is turned by a quarter to the right."""
    ego = torch.eye(4, dtype=torch.float64)
    ego[:3, 3] = torch.tensor([100.0, 200.0, 0.0])
    scene = ego.clone()
    scene[:3, :3] = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    scene[2, 3] = 1.8
    return KeyPose("a", scene, ego)


def found(n: int = 1, **change: torch.Tensor) -> Detections:
    """Cars 10 m ahead."""
    boxes = Boxes(
        center=torch.tensor([[0.0, 10.0, -1.0]]).repeat(n, 1),
        size=torch.tensor([[4.0, 2.0, 1.5]]).repeat(n, 1),
        yaw=torch.full((n,), torch.pi / 2),
        velocity=torch.tensor([[0.0, 3.0, 0.0]]).repeat(n, 1),
        category=torch.zeros(n, dtype=torch.long),
        instance=torch.full((n,), -1),
    )
    return Detections(replace(boxes, **change), torch.linspace(0.9, 0.1, n, dtype=torch.float64))


def stored(path: Path, *samples: tuple[KeyPose, Detections]) -> dict[str, Any]:
    return json.loads(write_submission(path, samples, META).read_text())


def test_a_box_is_written_as_published(pose: KeyPose, tmp_path: Path) -> None:
    made = stored(tmp_path / "one.json", (pose, found()), (replace(pose, token="b"), Detections.empty()))
    names = ("use_camera", "use_lidar", "use_radar", "use_map", "use_external")
    assert made["meta"] == dict(zip(names, (True, True, False, False, False), strict=True))
    assert list(made["results"]) == ["a", "b"] and made["results"]["b"] == []
    (box,) = made["results"]["a"]
    assert box["translation"] == pytest.approx([110.0, 200.0, 0.8])
    assert box["size"] == pytest.approx([2.0, 4.0, 1.5])
    assert box["rotation"] == pytest.approx([1.0, 0.0, 0.0, 0.0], abs=1e-6)
    assert box["velocity"] == pytest.approx([3.0, 0.0], abs=1e-6)
    assert (box["sample_token"], box["detection_name"]) == ("a", "car")
    assert (box["detection_score"], box["attribute_name"]) == (0.9, "vehicle.moving")


def test_the_surest_boxes_within_range_are_kept(pose: KeyPose, tmp_path: Path) -> None:
    n = MOST_BOXES + 50
    far = torch.tensor([[0.0, 10.0, 0.0]]).repeat(n, 1)
    far[:20, 1] = 50.5
    rows = stored(tmp_path / "many.json", (pose, found(n, center=far)))["results"]["a"]
    scores = [one["detection_score"] for one in rows]
    assert len(rows) == MOST_BOXES and scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(float(found(n).score[20]))


def test_attributes_of_another_class_give_way_to_the_default(pose: KeyPose, tmp_path: Path) -> None:
    names = ["vehicle.parked", "pedestrian.moving"]
    given = torch.tensor([*(ATTRIBUTES.index(name) for name in names), -1])
    detections = found(3)
    boxes = replace(detections.boxes, fields={"attribute": given})
    rows = stored(tmp_path / "some.json", (pose, Detections(boxes, detections.score)))["results"]["a"]
    expected = ["vehicle.parked", "vehicle.moving", "vehicle.moving"]
    assert [one["attribute_name"] for one in rows] == expected


def test_unknown_velocities_are_written_and_read(pose: KeyPose, tmp_path: Path) -> None:
    unknown = found(velocity=torch.full((1, 3), torch.nan))
    path = write_submission(tmp_path / "one.json", [(pose, unknown)], META)
    read = read_submission(path, ["a"]).detections["a"].boxes
    assert bool(read.velocity[:, :2].isnan().all())
    assert ATTRIBUTES[int(read.fields["attribute"][0])] == "vehicle.parked"


def test_a_write_that_fails_leaves_the_earlier_file(pose: KeyPose, tmp_path: Path) -> None:
    path = write_submission(tmp_path / "one.json", [(pose, found())], META)
    before = path.read_bytes()

    def broken() -> Iterator[tuple[KeyPose, Detections]]:
        yield pose, found()
        raise RuntimeError("the network fails")

    with pytest.raises(RuntimeError):
        write_submission(path, broken(), META)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def _set(field: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda made: made["results"]["a"][0].update({field: value})


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "unknown class": (_set("detection_name", "bike"), "a: unknown class 'bike'"),
    "unknown attribute": (_set("attribute_name", "parked"), "a: unknown attribute 'parked'"),
    "attribute of another class": (
        _set("attribute_name", "cycle.with_rider"),
        "a: car cannot have the attribute 'cycle.with_rider'",
    ),
    "nan": (
        _set("translation", [float("nan"), 0.0, 0.0]),
        "a: translation of a car is not finite: [nan, 0.0",
    ),
    "infinite velocity": (_set("velocity", [float("inf"), 0.0]), "a: velocity of a car is not finite"),
    "negative size": (_set("size", [-2.0, 4.0, 1.5]), "a: size of a car is not above 0: [-2.0, 4.0, 1.5]"),
    "two numbers": (_set("size", [2.0, 4.0]), "a: size has to be a list of 3 numbers"),
    "words": (_set("velocity", ["fast", "slow"]), "a: velocity has to be a list of 2 numbers"),
    "no rotation": (_set("rotation", [0.0, 0.0, 0.0, 0.0]), "a: rotation of a car has the length 0"),
    "nan score": (_set("detection_score", float("nan")), "a: detection_score of a car has to be a number"),
    "score below 0": (_set("detection_score", -1.0), "a: detection_score of a car has to be a number"),
    "other token": (_set("sample_token", "b"), "a: a box has the sample_token 'b'"),
    "missing field": (lambda made: made["results"]["a"][0].pop("velocity"), "a: a box has no 'velocity'"),
    "no box": (lambda made: made["results"]["a"].append({}), "a: a box has no"),
    "missing sample": (lambda made: made["results"].pop("b"), "1 of 2 samples are missing: b"),
    "sample too many": (
        lambda made: made["results"].update({"c": []}),
        "1 of 3 samples are not of this split: c",
    ),
    "501 boxes": (
        lambda made: made["results"].update({"a": made["results"]["a"] * 501}),
        "a: 501 boxes, at most 500 are allowed",
    ),
    "no list": (lambda made: made["results"].update({"a": {}}), "a: expected a list of boxes"),
    "no meta": (lambda made: made.pop("meta"), "meta has to say true or false for use_camera"),
    "half a meta": (lambda made: made["meta"].pop("use_map"), "meta has to say true or false for"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_the_server_refuses_is_refused_with_one_message(
    name: str, pose: KeyPose, tmp_path: Path
) -> None:
    change, message = WRONG[name]
    made = stored(tmp_path / "one.json", (pose, found()), (replace(pose, token="b"), found()))
    change(made)
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(made))
    with pytest.raises(OutputError) as error:
        read_submission(path, ["a", "b"])
    assert error.value.message.startswith(f"{path}: {message}") and ";" not in error.value.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "expected an object with 'meta' and 'results'"),
        ('{"results": []}', "expected an object with 'meta' and 'results'"),
        (f'{{"results": {{"a": [{{"translation": [1{"0" * 400}, 0, 0]}}]}}}}', "a box has no"),
        ('{"results": {"a": [], "a": []}, "meta": {}}', "a: the sample occurs twice"),
    ],
)
def test_other_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(OutputError, match=message):
        read_submission(path, ["a"])


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file"):
        read_submission(tmp_path / "none.json", [])


def test_many_problems_are_counted(pose: KeyPose, tmp_path: Path) -> None:
    made = stored(tmp_path / "one.json", *((replace(pose, token=one), found()) for one in "abcdef"))
    for rows in made["results"].values():
        rows[0]["detection_name"] = "bike"
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(made))
    with pytest.raises(OutputError, match="and 3 more problems"):
        read_submission(path, "abcdef")


def test_classes_of_all_kinds_are_written_and_read(pose: KeyPose, tmp_path: Path) -> None:
    n = len(DETECTION_NAMES)
    boxes = found(n, category=torch.arange(n), yaw=torch.linspace(-3.0, 3.0, n))
    path = write_submission(tmp_path / "all.json", [(pose, boxes)], META)
    read = read_submission(path, ["a"]).detections["a"]
    sample = DetectionSample.of_scene(Boxes.empty(), boxes, pose)
    torch.testing.assert_close(read.boxes.center, sample.found.boxes.center)
    torch.testing.assert_close(read.boxes.size, sample.found.boxes.size)
    torch.testing.assert_close(read.boxes.yaw, sample.found.boxes.yaw)
    torch.testing.assert_close(read.boxes.velocity, sample.found.boxes.velocity)
    assert read.boxes.category.tolist() == list(range(n)) and torch.equal(read.score, boxes.score)
