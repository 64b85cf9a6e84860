"""Folders that PonderV2 and Pointcept processed go through the commands as they are, and stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ponderv2.errors import SceneError
from ponderv2.training.report import SilentReporter
from ponderv2.workflows import evaluate, finetune, prepare, pretrain
from ponderv2.workflows.config import FinetuneConfig, PrepareConfig, PretrainConfig
from tests.datasets.processed import writers
from tests.workflows.tiny import finetune_config, pretrain_config


def scannet_npy(root: Path) -> None:
    """Pointcept's points, PonderV2's images."""
    writers.scannet_npy(root)
    for number in range(3):
        writers.scannet_rgbd(root, f"scene{number:04d}_00")


FOLDERS: dict[str, tuple[Callable[[Path], None], str, str, int]] = {
    "ScanNet .pth": (writers.scannet_pth, "train", "val", 20),
    "S3DIS .pth": (writers.s3dis_pth, "Area_1", "Area_5", 13),
    "Structured3D .pth": (writers.structured3d_pth, "train", "val", 25),
    "ScanNet .npy": (scannet_npy, "train", "val", 20),
}
POINTS: dict[str, tuple[Callable[[Path], None], str, str, int]] = {
    "S3DIS .npy": (writers.s3dis_npy, "Area_1", "Area_5", 13),
    "Structured3D .npy": (writers.structured3d_npy, "train", "val", 25),
    "ScanNet++ .npy": (writers.scannetpp_npy, "train", "val", 3),
}
ONE_STEP: dict[str, Any] = {"steps": 1, "batch_size": 1, "save_every": 1, "evaluate_every": 0}


class Notes(SilentReporter):
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@contextmanager
def read_only(root: Path) -> Iterator[None]:
    """Nothing in the folder may be written; nothing is, not even by those whom permissions do not stop."""
    everything = [root, *root.rglob("*")]
    before = {one: (one.stat().st_mtime_ns, one.stat().st_size) for one in everything}
    modes = {one: one.stat().st_mode for one in everything}
    for one in everything:
        one.chmod(0o555 if one.is_dir() else 0o444)
    try:
        yield
    finally:
        for one, mode in modes.items():
            one.chmod(mode)
    assert {one: (one.stat().st_mtime_ns, one.stat().st_size) for one in [root, *root.rglob("*")]} == before


def with_splits(config: Any, train: str, val: str) -> Any:
    return config.model_copy(update={"train_split": train, "val_split": val})


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_with_images_are_pretrained_on_evaluated_and_checked(tmp_path: Path, folder: str) -> None:
    write, train, val, _ = FOLDERS[folder]
    data, report = tmp_path / "data", Notes()
    write(data)
    config: PretrainConfig = with_splits(pretrain_config(**ONE_STEP), train, val)
    with read_only(data):
        result = pretrain.run(config, scenes=data, out=tmp_path / "runs", name="run", report=report)
        measured = evaluate.run(result.folder, scenes=data, split=val, width=16)
        values = {"source": {"kind": "rgbd", "path": "."}, "out": data}
        checked = prepare.check(PrepareConfig.model_validate(values))
    assert result.steps == 1 and measured.n_scenes == 1 and measured.metrics["psnr"] > 0
    assert any("read in place" in note for note in report.notes)
    assert any("no normals" in note for note in report.notes) == folder.startswith("S3DIS")
    rooms = [one for one in checked.scenes if one.n_frames]
    assert checked.n_failed == 0 and len(rooms) == (2 if folder.startswith("S3DIS") else 3)
    errors = [one.check.median_error for one in rooms if one.check is not None]
    assert len(errors) == len(rooms) and all(error is not None and error < 0.02 for error in errors)


@pytest.mark.parametrize("folder", [*FOLDERS, *POINTS])
def test_labelled_folders_are_finetuned_on_and_evaluated(tmp_path: Path, folder: str) -> None:
    write, train, val, n_classes = (FOLDERS | POINTS)[folder]
    data = tmp_path / "data"
    write(data)
    values = finetune_config(**ONE_STEP).model_dump(mode="json")
    values["model"]["head"] = {"kind": "linear"}
    config = with_splits(FinetuneConfig.model_validate(values), train, val)
    with read_only(data):
        result = finetune.run(config, scenes=data, out=tmp_path / "runs", name="run")
        measured = evaluate.run(result.folder, scenes=data, split=val)
    assert result.steps == 1 and len(measured.classes) == n_classes


def test_scenes_are_not_prepared_into_a_folder_of_another_program(tmp_path: Path) -> None:
    writers.s3dis_pth(tmp_path, ("Area_1",))
    before = sorted(tmp_path.rglob("*"))
    values = {"source": {"kind": "synthetic", "rooms": 1}, "out": tmp_path, "workers": 1}
    with pytest.raises(SceneError, match="another program processed"):
        prepare.run(PrepareConfig.model_validate(values))
    assert sorted(tmp_path.rglob("*")) == before
