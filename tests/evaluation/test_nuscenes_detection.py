"""The nuScenes detection score against nuscenes-devkit, and against what is known in closed form."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ponderv2.datasets.nuscenes.classes import ATTRIBUTES, DETECTION_NAMES
from ponderv2.datasets.nuscenes.config import NuscenesConfig
from ponderv2.datasets.nuscenes.detection_rules import default_attributes
from ponderv2.datasets.streets.config import StreetsConfig
from ponderv2.evaluation.nuscenes_detection import (
    DetectionSample,
    DetectionScore,
    average_precision,
    detection_score,
)
from ponderv2.evaluation.nuscenes_matching import BoxTable, by_score, match
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.detections import Detections
from ponderv2.tasks.detection.nuscenes_submission import read_submission
from ponderv2.workflows.config import PrepareConfig
from ponderv2.workflows.prepare import run
from tests.datasets.drives.crowded_drives import guesses, in_scene, truths_of
from tests.evaluation.devkit_scores import CASES, STORED, Case, kit_scores, make_case, our_scores
from tests.workflows.heard import Heard

NO_KIT = "nuscenes-devkit cannot be imported; docs/dependencies.md says how it is installed"
TOLERANCE = {"rel": 0.0, "abs": 1.0e-6, "nan_ok": True}


def score_of(case: Case) -> DetectionScore:
    pairs = zip(case.truths, case.found, strict=True)
    return detection_score(
        [DetectionSample.of_scene(in_scene(one.boxes, one), found, one.pose) for one, found in pairs]
    )


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """By name."""
    return {name: make_case(name, tmp_path_factory.mktemp(name) / "data") for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_every_metric_is_that_of_the_development_kit(
    name: str, cases: dict[str, Case], tmp_path: Path
) -> None:
    case = cases[name]
    expected = json.loads(STORED.read_text())[name]
    direct = our_scores(score_of(case))
    path = case.write(tmp_path / "submission.json")
    submission = read_submission(path, [one.pose.token for one in case.truths])
    read = our_scores(detection_score(submission.samples(case.truths)))
    assert direct.keys() == read.keys() == expected.keys()
    assert direct == pytest.approx(expected, **TOLERANCE)
    assert read == pytest.approx(expected, **TOLERANCE)


@pytest.mark.parametrize("name", CASES)
def test_stored_metrics_are_those_of_the_installed_kit(
    name: str, cases: dict[str, Case], tmp_path: Path
) -> None:
    pytest.importorskip("nuscenes.eval.detection.evaluate", reason=NO_KIT)
    case = cases[name]
    found = kit_scores(case, case.write(tmp_path / "submission.json"), tmp_path / "kit")
    assert found == pytest.approx(json.loads(STORED.read_text())[name], **TOLERANCE)


def test_every_metric_on_generated_streets_is_that_of_the_kit(tmp_path: Path) -> None:
    pytest.importorskip("nuscenes.eval.detection.evaluate", reason=NO_KIT)
    small = {"width": 64, "height": 36, "columns": 240, "camera_rate": 12, "key_frames": 2, "sweeps": False}
    source = StreetsConfig.model_validate({"scenes": 1, **small})
    run(PrepareConfig(source=source, out=tmp_path / "data", workers=1), Heard())
    truths = truths_of(NuscenesConfig(path=tmp_path / "data"), "train")
    found = [guesses(one, number) for number, one in enumerate(truths)]
    case = Case(NuscenesConfig(path=tmp_path / "data"), truths, found, "v1.0-trainval", "train")
    expected = kit_scores(case, case.write(tmp_path / "submission.json"), tmp_path / "kit")
    score = score_of(case)
    assert our_scores(score) == pytest.approx(expected, **TOLERANCE)
    assert score.mean_ap > 0.01
    perfect = replace(case, found=[_perfect(in_scene(one.boxes, one)) for one in truths])
    assert float(score_of(perfect).ap[score.n_true > 0].min()) == pytest.approx(1.0)


@pytest.fixture(scope="module")
def crowd(cases: dict[str, Case]) -> Case:
    """Every class is there; what was found is what is there."""
    made = cases["crowd"]
    return replace(made, found=[_perfect(in_scene(one.boxes, one)) for one in made.truths])


def _perfect(true: Boxes) -> Detections:
    there = true.take((true.category >= 0) & (true.fields["n_lidar"] + true.fields["n_radar"] > 0))
    return Detections(there, torch.linspace(1.0, 0.5, len(there), dtype=torch.float64))


def changed(case: Case, **change: object) -> Case:
    """With other arrays of the found boxes: a function of the boxes each."""
    boxes = [
        replace(one.boxes, **{name: make(one.boxes) for name, make in change.items()})  # type: ignore[operator]
        for one in case.found
    ]
    return replace(
        case, found=[Detections(box, one.score) for box, one in zip(boxes, case.found, strict=True)]
    )


def test_truth_scores_one_with_all_errors_zero(crowd: Case) -> None:
    score = score_of(crowd)
    assert score.nds == pytest.approx(1.0, abs=1e-9)
    assert score.ap.min() == pytest.approx(1.0, abs=1e-12)
    assert float(score.errors.nan_to_num().max()) < 1e-9
    assert score.warnings == () and torch.equal(score.n_true, score.n_found) and int(score.n_true.min()) > 0


def test_exchanged_width_and_length_raise_the_size_error_and_a_warning(crowd: Case) -> None:
    score = score_of(changed(crowd, size=lambda box: box.size[:, [1, 0, 2]]))
    assert score.mean_ap == pytest.approx(1.0) and 0.5 < score.mean_errors["ase"] < 0.75
    cars = float(score.errors[DETECTION_NAMES.index("car"), 1])
    assert 0.65 < cars < 0.8
    (warning,) = score.warnings
    assert "width and length" in warning


@pytest.mark.parametrize(
    ("turn", "error", "words"),
    [
        (lambda box: box.yaw + torch.pi / 2, torch.pi / 2, "turned by 90 degrees"),
        (lambda box: box.yaw - torch.pi / 2, torch.pi / 2, "turned by 270 degrees"),
        (lambda box: -box.yaw, None, "mirrored"),
        (lambda box: -box.yaw - torch.pi / 2, None, "mirrored"),
    ],
)
def test_turned_and_mirrored_headings_raise_the_orientation_error_and_a_warning(
    turn: object, error: float | None, words: str, crowd: Case
) -> None:
    score = score_of(changed(crowd, yaw=turn))
    assert score.mean_errors["aoe"] == pytest.approx(error if error else 1.5, abs=1e-4 if error else 0.3)
    (warning,) = score.warnings
    assert words in warning


def test_centres_of_bottom_faces_change_no_metric_and_raise_a_warning(crowd: Case) -> None:
    down = torch.tensor([0.0, 0.0, 1.0])
    score = score_of(changed(crowd, center=lambda box: box.center - box.size[:, 2:] / 2 * down))
    assert score.nds > 0.98
    (warning,) = score.warnings
    assert "bottom faces" in warning and "0.50" in warning


def test_noisy_boxes_of_the_right_convention_raise_no_warning(cases: dict[str, Case]) -> None:
    assert score_of(cases["crowd"]).warnings == ()


def test_random_headings_raise_no_warning(crowd: Case, rng: torch.Generator) -> None:
    score = score_of(changed(crowd, yaw=lambda box: 6.3 * torch.rand(len(box), generator=rng).double()))
    assert score.mean_errors["aoe"] > 1.0 and score.warnings == ()


def test_nothing_found_and_nothing_there() -> None:
    pose = torch.eye(4)
    score = detection_score([DetectionSample(Boxes.empty(), Detections.empty(), pose)])
    assert score.nds == 0.0 and score.mean_ap == 0.0 and set(score.mean_errors.values()) == {1.0}
    assert detection_score([]).nds == 0.0


def cars(*rows: tuple[float, float], score: tuple[float, ...] = ()) -> Detections:
    """Cars at x, y."""
    n = len(rows)
    boxes = Boxes(
        center=torch.tensor([(x, y, 0.0) for x, y in rows]).reshape(n, 3),
        size=torch.tensor([[4.0, 2.0, 1.5]] * n).reshape(n, 3),
        yaw=torch.zeros(n),
        velocity=torch.zeros(n, 3),
        category=torch.zeros(n, dtype=torch.long),
        instance=torch.arange(n),
    )
    return Detections(boxes, torch.tensor(score or (1.0,) * n))


def test_a_range_is_counted_from_the_vehicle_and_leaves_out_its_border() -> None:
    pose = torch.eye(4)
    pose[0, 3] = 100.0
    truth = cars((150.0, 0.0), (149.99, 0.0), (50.0, 0.0), (100.0, 30.0)).boxes
    score = detection_score([DetectionSample(truth, cars((0.0, 0.0), (151.0, 0.0), (140.0, 0.0)), pose)])
    assert score.n_true[0] == 2 and score.n_found[0] == 1


def test_boxes_without_lidar_and_radar_points_are_not_expected() -> None:
    truth = replace(
        cars((1.0, 0.0), (9.0, 0.0), (18.0, 0.0)).boxes,
        fields={"n_lidar": torch.tensor([0, 0, 5]), "n_radar": torch.tensor([0, 2, 0])},
    )
    assert int(detection_score([DetectionSample(truth, Detections.empty(), torch.eye(4))]).n_true[0]) == 2


def test_of_equal_scores_the_later_takes_the_box() -> None:
    """The first is nearer; the later comes first all the same, so that its distance is the error."""
    found = cars((10.0, 0.1), (10.0, 1.5), score=(0.5, 0.5))
    score = detection_score([DetectionSample(cars((10.0, 0.0)).boxes, found, torch.eye(4))])
    assert float(score.errors[0, 0]) == pytest.approx(1.5)
    assert by_score(np.array([0.5, 0.9, 0.5])).tolist() == [1, 2, 0]


def test_a_centre_at_the_threshold_is_no_match() -> None:
    sample = DetectionSample(cars((10.0, 0.0)).boxes, cars((12.0, 0.0)), torch.eye(4))
    assert detection_score([sample]).ap[0].tolist() == pytest.approx([0.0, 0.0, 0.0, 1.0])


def test_matching_equals_the_loop(rng: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ponderv2.evaluation.nuscenes_matching.AT_ONCE", 50)

    def table(n: int) -> BoxTable:
        made = torch.rand(n, 3, generator=rng).numpy().astype(np.float64) * 10
        sample = np.sort(torch.randint(0, 7, (n,), generator=rng).numpy())
        score = np.round(torch.rand(n, generator=rng).numpy().astype(np.float64), 1)
        zeros = np.zeros(n)
        return BoxTable(
            sample, made.round(1), made, zeros, made[:, :2], zeros.astype(int), zeros.astype(int), score
        )

    found, true, distances = table(150), table(60), (0.5, 2.0, 4.0)
    for row, distance in zip(match(found, true, distances), distances, strict=True):
        expected, taken = np.full(len(found), -1), set()
        for one in by_score(found.score):
            nearest, best = np.inf, -1
            for other in np.flatnonzero(true.sample == found.sample[one]):
                far = np.linalg.norm(found.center[one, :2] - true.center[other, :2])
                if far < nearest and other not in taken:
                    nearest, best = far, int(other)
            if nearest < distance:
                expected[one] = best
                taken.add(best)
        assert row.tolist() == expected.tolist()


def test_average_precision_in_closed_form() -> None:
    """All right up to recall r: mean over recalls above 0.1 of 1 - 0.1, divided by 0.9."""
    right = np.ones(50, bool)
    assert average_precision(right, 100) == pytest.approx(40 / 90)
    assert average_precision(right[:10], 100) == 0.0
    assert average_precision(np.array([True, False] * 50), 50) == pytest.approx((0.5 - 0.1) / 0.9, abs=0.01)


@pytest.mark.parametrize(
    ("name", "slow", "fast"),
    [
        ("car", "vehicle.parked", "vehicle.moving"),
        ("truck", "vehicle.parked", "vehicle.moving"),
        ("trailer", "vehicle.parked", "vehicle.moving"),
        ("construction_vehicle", "vehicle.parked", "vehicle.moving"),
        ("bus", "vehicle.stopped", "vehicle.moving"),
        ("pedestrian", "pedestrian.standing", "pedestrian.moving"),
        ("bicycle", "cycle.without_rider", "cycle.with_rider"),
        ("motorcycle", "cycle.without_rider", "cycle.with_rider"),
        ("barrier", "", ""),
        ("traffic_cone", "", ""),
    ],
)
def test_attributes_follow_from_class_and_speed(name: str, slow: str, fast: str) -> None:
    category = torch.full((3,), DETECTION_NAMES.index(name))
    velocity = torch.tensor([[0.1, 0.1, 9.0], [0.15, 0.15, 0.0], [torch.nan] * 3])
    names = [ATTRIBUTES[one] if one >= 0 else "" for one in default_attributes(category, velocity).tolist()]
    assert names == [slow, fast, slow]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"category": torch.tensor([10])}, "classes"),
        ({"size": torch.zeros(1, 3)}, "sizes above 0"),
        ({"yaw": torch.tensor([torch.nan])}, "finite"),
    ],
)
def test_predictions_that_cannot_be_scored_are_refused(change: dict[str, torch.Tensor], words: str) -> None:
    found = cars((1.0, 2.0))
    found = Detections(replace(found.boxes, **change), found.score)
    with pytest.raises(ValueError, match=words):
        detection_score([DetectionSample(Boxes.empty(), found, torch.eye(4))])
