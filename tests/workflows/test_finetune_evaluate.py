"""Fine-tuning on a pre-trained encoder, linear probes, and the numbers of both kinds of checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ponderv2.errors import CheckpointError, PresetError, SceneError
from ponderv2.models.finetuned import SegmentationModel
from ponderv2.training.checkpoint import load_checkpoint
from ponderv2.training.stored_models import load_model
from ponderv2.workflows import evaluate, finetune, pretrain
from ponderv2.workflows.configs import FinetuneConfig
from tests.workflows.tiny import finetune_config, pretrain_config, rooms


def _probe(config: FinetuneConfig) -> FinetuneConfig:
    model = config.model.model_copy(update={"freeze_encoder": True})
    return config.model_copy(update={"model": model})


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A pre-training run of two steps."""
    config = pretrain_config(steps=2, evaluate_every=0)
    return pretrain.run(config, scenes=rooms(tmp_path / "rooms"), out=tmp_path, name="pre").folder


def test_classes_that_follow_from_normals_are_learned_from_scratch(tmp_path: Path) -> None:
    scenes = rooms(tmp_path / "rooms")
    config = finetune_config(steps=40, evaluate_every=20, save_every=20)
    result = finetune.run(config, scenes=scenes, out=tmp_path, name="scratch")
    assert result.metrics["allacc"] > 0.8 and result.best["miou"] >= result.metrics["miou"]
    numbers = evaluate.run(tmp_path / "scratch", scenes=scenes)
    assert numbers.kind == "segmentation" and numbers.n_scenes == 2
    assert numbers.metrics["miou"] == pytest.approx(result.best["miou"])
    assert [row["class"] for row in numbers.classes] == ["wall", "floor", "ceiling"]
    assert numbers.metrics["miou"] == pytest.approx(sum(row["iou"] for row in numbers.classes) / 3)
    assert sum(row["points"] for row in numbers.classes) == 2 * 1500
    assert numbers.pictures[0].is_file()
    turned = evaluate.run(tmp_path / "scratch", scenes=scenes, test_time="4")
    assert 0 < turned.metrics["miou"] <= 1


def test_a_linear_probe_leaves_the_encoder_as_it_was_pretrained(tmp_path: Path, encoder: Path) -> None:
    config = _probe(finetune_config(steps=3))
    result = finetune.run(config, checkpoint=encoder, scenes=tmp_path / "rooms", out=tmp_path, name="probe")
    before = load_checkpoint(encoder / "checkpoints" / "last.pth").model
    after = load_checkpoint(result.folder / "checkpoints" / "last.pth").model
    shared = [name for name in after if name.startswith("backbone.")]
    assert shared and all(torch.equal(after[name], before[name]) for name in shared)


def test_a_probe_of_a_random_encoder_has_statistics_of_the_data(tmp_path: Path) -> None:
    scenes = rooms(tmp_path / "rooms")
    finetune.run(_probe(finetune_config(steps=1)), scenes=scenes, out=tmp_path, name="random")
    model = load_model(tmp_path / "random")
    assert isinstance(model, SegmentationModel)
    means = [value for name, value in model.state_dict().items() if name.endswith("running_mean")]
    assert all(float(value.abs().max()) > 0 for value in means)


def test_fine_tuning_starts_from_the_pretrained_encoder(tmp_path: Path, encoder: Path) -> None:
    model = SegmentationModel(finetune_config().model)
    report = finetune.load_encoder(model, encoder)
    stored = load_checkpoint(encoder / "checkpoints" / "last.pth").model
    assert not report.mismatched and not report.unexpected
    assert all(
        torch.equal(value, stored[name]) for name, value in model.state_dict().items() if "backbone" in name
    )


def test_an_encoder_of_another_size_is_refused(tmp_path: Path, encoder: Path) -> None:
    values = finetune_config().model_dump()
    values["model"]["encoder"]["channels"] = [8, 16, 8, 8]
    with pytest.raises(CheckpointError, match="of another model"):
        finetune.run(
            FinetuneConfig.model_validate(values), checkpoint=encoder, scenes=tmp_path / "rooms", out=tmp_path
        )


def test_another_number_of_classes_names_the_right_one(tmp_path: Path) -> None:
    values = finetune_config().model_dump()
    values["model"]["head"]["n_classes"] = 5
    with pytest.raises(PresetError) as caught:
        finetune.run(FinetuneConfig.model_validate(values), scenes=rooms(tmp_path / "rooms"), out=tmp_path)
    assert caught.value.fix == "--set model.head.n_classes=3"


def test_a_pretraining_checkpoint_is_measured_by_what_it_renders(tmp_path: Path, encoder: Path) -> None:
    numbers = evaluate.run(encoder, scenes=tmp_path / "rooms", width=16)
    assert numbers.kind == "pretext" and len(numbers.views) == 2
    psnr = sum(view["psnr"] for view in numbers.views) / 2
    assert numbers.metrics["psnr"] == pytest.approx(psnr)
    assert all(picture.is_file() for picture in numbers.pictures)


def test_a_split_without_scenes_is_named(tmp_path: Path, encoder: Path) -> None:
    with pytest.raises(SceneError, match="no scenes in 'test'"):
        evaluate.run(encoder, scenes=tmp_path / "rooms", split="test")
