"""Lidar segmentation of tiny drives: metrics and files as the benchmarks' own evaluators count them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ponderv2.datasets.benchmarks import NUSCENES, SEMANTICKITTI, benchmark_of
from ponderv2.datasets.nuscenes.classes import CATEGORIES, segment_class
from ponderv2.datasets.semantickitti import classes as kitti
from ponderv2.errors import OutputError, SceneError
from ponderv2.evaluation.semantic import named_metrics
from ponderv2.tasks.segmentation.scan_submission import (
    check_scans,
    nuscenes_format,
    semantickitti_format,
    write_scans,
)
from ponderv2.workflows import evaluate, finetune
from ponderv2.workflows.config import FinetuneConfig
from tests.datasets.drives.nuscenes_drives import LANDMARKS, write_drives
from tests.datasets.drives.test_kitti import write_sequence
from tests.workflows.tiny import ENCODER, TRAINING


def settings(n_classes: int, **data: object) -> FinetuneConfig:
    return FinetuneConfig.model_validate(
        {
            "data": {
                "voxel": {"size": 1.0},
                "features": ["coord"],
                "fields": ["intensity"],
                "centred": False,
                "augment": [{"kind": "flip"}],
                "sphere_crop": None,
                "mix_probability": 0.0,
                **data,
            },
            "model": {
                "kind": "segmentation",
                "encoder": {**ENCODER, "in_channels": 4},
                "head": {"kind": "linear", "n_classes": n_classes},
                "losses": {"lovasz": 0.0},
            },
            "training": {**TRAINING, "steps": 2, "evaluate_every": 0},
        }
    )


@pytest.fixture(scope="module")
def nuscenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drives with categories at random, and a model of two steps."""
    root = tmp_path_factory.mktemp("nuscenes")
    made = write_drives(root / "data", n_samples=3)
    rng = np.random.default_rng(5)
    rows = []
    for scan in made.tables["sample_data"]:
        if scan["is_key_frame"] and "LIDAR_TOP" in scan["filename"]:
            file = f"lidarseg/{made.version}/{scan['token']}_lidarseg.bin"
            path = made.root / file
            path.parent.mkdir(parents=True, exist_ok=True)
            rng.integers(0, len(CATEGORIES), LANDMARKS).astype("u1").tofile(path)
            rows.append({"token": scan["token"], "sample_data_token": scan["token"], "filename": file})
    (made.root / made.version / "lidarseg.json").write_text(json.dumps(rows))
    finetune.run(settings(16), scenes=made.root, out=root, name="run")
    return root


def counted(truth: np.ndarray, predicted: np.ndarray, n: int) -> np.ndarray:
    """Confusion of 0..n, point by point."""
    found = np.zeros((n + 1, n + 1), np.int64)
    for one, other in zip(truth.tolist(), predicted.tolist(), strict=True):
        found[one, other] += 1
    return found


def nuscenes_mean(confusion: np.ndarray) -> float:
    """As the development kit: rows and columns of 0 removed, classes of an empty union left out."""
    kept = confusion[1:, 1:].astype(float)
    union = kept.sum(0) + kept.sum(1) - kept.diagonal()
    with np.errstate(invalid="ignore"):
        return float(np.nanmean(kept.diagonal() / union))


def semantickitti_mean(confusion: np.ndarray) -> float:
    """As the data set's own tools: true points of 0 removed, a predicted 0 is a miss, all classes count."""
    kept = confusion.astype(float)
    kept[0] = 0.0
    hit = kept.diagonal()
    union = kept.sum(0) + kept.sum(1) - hit
    return float((hit / np.maximum(union, 1e-15))[1:].mean())


def test_nuscenes_files_are_scored_as_the_evaluation_says(nuscenes: Path, tmp_path: Path) -> None:
    done = evaluate.run(
        nuscenes / "run",
        scenes=nuscenes / "data",
        split="mini_val",
        tta="nuscenes",
        submission=tmp_path / "out.zip",
        out=tmp_path / "out",
    )
    assert done.n_scenes == 3 and done.tta == "nuscenes"
    labels = sorted((nuscenes / "data/lidarseg/v1.0-mini").glob("*.bin"))
    official = np.array([segment_class(name) + 1 for name in CATEGORIES])
    total = np.zeros((17, 17), np.int64)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        archive.extractall(tmp_path / "unzipped")
    written = sorted((tmp_path / "unzipped/lidarseg/mini_val").iterdir())
    assert len(written) == 3 and {one.name for one in written} < {one.name for one in labels}
    for path in written:
        predicted = np.fromfile(path, "u1")
        assert predicted.shape == (LANDMARKS,) and predicted.min() >= 1 and predicted.max() <= 16
        truth = official[np.fromfile(nuscenes / "data/lidarseg/v1.0-mini" / path.name, "u1")]
        total += counted(truth, predicted, 16)
    assert done.metrics["miou_predicted"] == pytest.approx(nuscenes_mean(total))
    meta = json.loads((tmp_path / "unzipped/mini_val/submission.json").read_text())["meta"]
    assert meta["use_lidar"] is True and meta["use_camera"] is False and len(meta) == 5


def test_semantickitti_files_hold_the_ids_of_the_data_set(tmp_path: Path) -> None:
    write_sequence(tmp_path / "data", n_scans=2)
    (tmp_path / "data/sequences/00").symlink_to(tmp_path / "data/sequences/08")
    rng = np.random.default_rng(2)
    for path in (tmp_path / "data/sequences/08/labels").iterdir():
        rng.choice([0, 10, 252, 40, 60, 99, 81], 50).astype("<u4").tofile(path)
    config = settings(19, clip={"lower": [-15.0, -15.0, -4.0], "upper": [15.0, 15.0, 2.0]})
    finetune.run(config, scenes=tmp_path / "data", out=tmp_path, name="run")
    done = evaluate.run(
        tmp_path / "run", scenes=tmp_path / "data", tta="semantickitti", submission=tmp_path / "out.zip"
    )
    total = np.zeros((20, 20), np.int64)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        names = archive.namelist()
        for number in range(2):
            raw = np.frombuffer(archive.read(f"sequences/08/predictions/{number:06d}.label"), "<u4")
            assert len(raw) == 50 and set(raw.tolist()) <= {ids[0] for ids in kitti.STORED}
            stored = np.fromfile(tmp_path / f"data/sequences/08/labels/{number:06d}.label", "<u4")
            truth, predicted = (
                np.array([kitti.CLASS_OF.get(int(one) & 0xFFFF, -1) + 1 for one in ids])
                for ids in (stored, raw)
            )
            total += counted(truth, predicted, 19)
    assert names[:3] == ["sequences/", "sequences/08/", "sequences/08/predictions/"]
    assert done.metrics["miou_all"] == pytest.approx(semantickitti_mean(total))


def test_means_of_both_benchmarks_match_slow_twins() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        confusion = rng.integers(0, 50, (7, 7)) * (rng.random((7, 7)) < 0.4)
        confusion[:, 0] = 0  # no model of ours predicts 'ignore'
        absent = rng.integers(1, 7)
        confusion[absent] = 0
        ours = named_metrics(torch.from_numpy(confusion[1:, 1:]), counts_predicted=True)
        assert ours["miou_predicted"] == pytest.approx(nuscenes_mean(confusion))
        assert ours["miou_all"] == pytest.approx(semantickitti_mean(confusion))


def test_the_benchmarks_are_known_by_their_classes() -> None:
    assert benchmark_of(kitti.CLASS_NAMES) is SEMANTICKITTI and SEMANTICKITTI.label_ids[:3] == (10, 11, 15)
    assert NUSCENES.label_ids == tuple(range(1, 17))


FILE = "lidarseg/val/a_lidarseg.bin"


@pytest.mark.parametrize(
    ("name", "ids", "problem"),
    [
        (FILE, [1, 2], "2 numbers, the scan has 3 points"),
        (FILE, [1, 0, 16], "id 0 is not one of the 16 classes"),
        (FILE, [1, 17, 16], "id 17 is not one"),
        ("lidarseg/val/b_lidarseg.bin", [1, 2, 3], "not a file of this split"),
        ("lidarseg/val/b_lidarseg.bin", [1, 2, 3], "a_lidarseg.bin: is missing"),
    ],
)
def test_what_a_server_refuses_is_found(tmp_path: Path, name: str, ids: list[int], problem: str) -> None:
    wanted = nuscenes_format("val", NUSCENES.label_ids)
    path = write_scans(tmp_path / "out.zip", [(name, np.array(ids))], wanted)
    assert any(problem in found for found in check_scans(path, {FILE: 3}, wanted))
    good = write_scans(tmp_path / "good.zip", [(FILE, np.array([1, 2, 3]))], wanted)
    assert check_scans(good, {FILE: 3}, wanted) == ()


def test_missing_folders_and_meta_data_are_found(tmp_path: Path) -> None:
    wanted = nuscenes_format("val", NUSCENES.label_ids)
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as archive:
        archive.writestr(FILE, bytes([1, 2, 3]))
        archive.writestr("val/submission.json", "{}")
    found = check_scans(tmp_path / "out.zip", {FILE: 3}, wanted)
    assert any("lidarseg/val/: the folder has no entry" in one for one in found)
    assert any("does not say whether" in one for one in found)
    with pytest.raises(OutputError, match="not a zip archive"):
        (tmp_path / "no.zip").write_text("1\n")
        check_scans(tmp_path / "no.zip", {}, semantickitti_format(SEMANTICKITTI.label_ids))


def test_scans_without_labels_are_written_for_the_server(nuscenes: Path, tmp_path: Path) -> None:
    """As in the test split; points that are left out of a scene make the file too short."""
    own = write_drives(tmp_path / "data", n_samples=3)
    (own.root / own.version / "lidarseg.json").write_text("[]")
    done = evaluate.run(
        nuscenes / "run", scenes=own.root, split="mini_val", submission=tmp_path / "a.zip", out=tmp_path
    )
    assert done.metrics == {}
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        sizes = [one.file_size for one in archive.infolist() if one.filename.endswith(".bin")]
    assert sizes == [LANDMARKS] * 3
    for path in (own.root / "samples/LIDAR_TOP").iterdir():
        rows = np.fromfile(path, "<f4")
        rows[2] = np.nan
        rows.tofile(path)
    with pytest.raises(OutputError, match="199 numbers, the scan has 200 points"):
        evaluate.run(
            nuscenes / "run", scenes=own.root, split="mini_val", submission=tmp_path / "b.zip", out=tmp_path
        )


def test_other_classes_have_no_submission(nuscenes: Path, tmp_path: Path) -> None:
    with pytest.raises(SceneError):
        write_sequence(tmp_path / "data", n_scans=1)
        evaluate.run(nuscenes / "run", scenes=tmp_path / "data", submission=tmp_path / "c.zip", split="val")


def test_classes_are_drawn_from_above_and_into_the_cameras(nuscenes: Path, tmp_path: Path) -> None:
    done = evaluate.run(nuscenes / "run", scenes=nuscenes / "data", split="mini_val", out=tmp_path)
    kinds = [path.stem.rpartition("_")[2] for path in done.images]
    assert kinds == ["confusion", *["above", "cameras"] * 3]
    assert all(path.is_file() for path in done.images)


def test_a_run_without_intensities_says_what_they_are_worth(nuscenes: Path) -> None:
    from ponder_cli.presets import settings_of
    from ponderv2.workflows import protocols
    from ponderv2.workflows.config import ProtocolsConfig

    def measured(*changes: str) -> list[float]:
        changed = settings_of(["data.train_split=mini_train", *changes], ProtocolsConfig)
        request = protocols.ComparisonRequest(("linear", "knn"), settings=changed)
        found = protocols.run([nuscenes / "run"], request, scenes=nuscenes / "data", split="mini_val")
        return [row["miou"] for row in found.protocols]

    whole, hidden = measured(), measured("data.hide=[intensity]")
    assert len(whole) == len(hidden) == 2 and whole != hidden
    few = measured("data.budget.drives=1", "data.budget.scenes_per_drive=1")
    assert len(few) == 2
