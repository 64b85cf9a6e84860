"""Label-free pre-training with the labels deleted, or turned into garbage, is the same to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ponderv2.data.config import LabelBudgetConfig, PretrainDataConfig
from ponderv2.data.pretrain_dataset import PretrainDataset
from ponderv2.store.store import SceneStore
from ponderv2.training.checkpoint import load_checkpoint
from ponderv2.workflows import pretrain
from tests.scenes.closed_form_room import write_store
from tests.workflows.tiny import DATA, pretrain_config, rooms

LABELS = ("segment*.npy", "instance.npy", "frames/semantic/*.png")


def label_files(root: Path) -> list[Path]:
    found = [path for pattern in LABELS for path in root.glob(f"*/*/{pattern}")]
    assert len(found) > 10
    return found


def trained(root: Path, out: Path, name: str) -> tuple[dict, str]:
    """Weights and logged numbers of a few steps with validation."""
    pretrain.run(pretrain_config(steps=2), scenes=root, out=out, name=name)
    lines = (out / name / "metrics.jsonl").read_text().splitlines()
    numbers = [line.split('"seconds"')[0] for line in lines]
    return load_checkpoint(out / name / "checkpoints" / "last.pth").model, "\n".join(numbers)


@pytest.mark.parametrize("harm", ["deleted", "garbage", "damaged"])
def test_training_without_labels_equals_training_beside_them(tmp_path: Path, harm: str) -> None:
    root = rooms(tmp_path / "rooms")
    before, numbers = trained(root, tmp_path, "before")
    for path in label_files(root):
        if harm == "garbage" and path.suffix == ".npy":
            np.save(path, np.full(np.load(path).shape, 17))
        elif harm == "deleted":
            path.unlink()
        else:
            path.write_bytes(b"nothing that could be read")
    after, numbers_after = trained(root, tmp_path, "after")
    assert numbers_after == numbers
    assert all(torch.equal(after[name], before[name]) for name in before)


def dataset(store: SceneStore, budget: LabelBudgetConfig) -> PretrainDataset:
    settings = {**DATA, "views": {"n_views": 3, "n_pixels": 40}, "budget": budget.model_dump()}
    return PretrainDataset(store, "train", PretrainDataConfig.model_validate(settings), with_labels=True)


def test_scenes_outside_the_budget_are_seen_without_labels(tmp_path: Path) -> None:
    data = dataset(write_store(tmp_path, 4), LabelBudgetConfig(scenes=("room1", "room3")))
    for index in range(4):
        batch = data.sample(index, 0)
        assert batch.pixels is not None
        seen = bool((batch.segment >= 0).any()), bool((batch.pixels.label >= 0).any())
        assert seen == ((True, True) if index in (1, 3) else (False, False))
        assert bool((batch.instance >= 0).any()) == (index in (1, 3))


def test_of_counted_points_no_other_label_is_seen(tmp_path: Path) -> None:
    """Labels that the budget does not name are poisoned: nothing of them may come through."""
    store = write_store(tmp_path, 2)
    budget = LabelBudgetConfig(points_per_scene=20)
    data = dataset(store, budget)
    for index in range(2):
        chosen = data.scene(index).cloud.labels["labelled"].numpy() > 0
        assert chosen.sum() == 20
        path = store.folder(f"room{index}", "train") / "segment.npy"
        segment = np.load(path)
        np.save(path, np.where(chosen, segment, np.random.default_rng(0).integers(0, 3, len(segment))))
    poisoned = dataset(store, budget)
    for index in range(2):
        found, clean = poisoned.sample(index, 0), data.sample(index, 0)
        assert torch.equal(found.segment, clean.segment) and 0 < int((found.segment >= 0).sum()) <= 20
        assert found.pixels is not None and (found.pixels.label == -1).all()


def test_without_a_budget_all_labels_are_seen(tmp_path: Path) -> None:
    batch = dataset(write_store(tmp_path, 1), LabelBudgetConfig()).sample(0, 0)
    assert batch.pixels is not None and (batch.pixels.label >= 0).all() and (batch.segment >= 0).all()


def test_the_summary_has_the_terms_that_the_settings_use(tmp_path: Path) -> None:
    """Without labels and text no semantic and no point term; the PSNR is no loss."""
    result = pretrain.run(pretrain_config(steps=1), scenes=rooms(tmp_path / "rooms"), out=tmp_path)
    used = {"color", "depth", "sdf", "free_space", "eikonal"}
    assert set(result.losses) == {"loss", *used}
    assert result.losses["loss"] == pytest.approx(sum(result.losses[name] for name in used), rel=1e-5)
    assert result.training_psnr is not None and result.training_psnr > 0
