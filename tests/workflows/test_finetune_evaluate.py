"""Fine-tuning on a pre-trained encoder, linear probes, and the numbers of both kinds of checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from ponderv2.data.scene_folder import open_folder
from ponderv2.errors import CheckpointError, PresetError, SceneError
from ponderv2.tasks.checkpoints import load_model, open_checkpoint
from ponderv2.tasks.kinds import task_of
from ponderv2.tasks.segmentation.config import SegmentationModelConfig
from ponderv2.tasks.segmentation.model import SegmentationModel
from ponderv2.training.checkpoint import load_checkpoint
from ponderv2.workflows import evaluate, finetune, pretrain, reconstruct, render
from ponderv2.workflows.config import FinetuneConfig, ReconstructConfig, RenderConfig
from ponderv2.workflows.finetune import completed
from tests.workflows.tiny import finetune_config, pretrain_config, rooms


def _probe(config: FinetuneConfig) -> FinetuneConfig:
    model = config.model.model_copy(update={"freeze_encoder": True})
    return config.model_copy(update={"model": model})


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A pre-training run of one step."""
    config = pretrain_config(steps=1, evaluate_every=0)
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
    assert numbers.images[0].is_file()
    turned = evaluate.run(tmp_path / "scratch", scenes=scenes, tta="scannet200")
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
    settings = finetune_config().model
    assert isinstance(settings, SegmentationModelConfig)
    model = SegmentationModel(settings)
    report = finetune.load_encoder(task_of(settings), model, open_checkpoint(encoder))
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


def test_classes_beyond_those_of_the_model_are_said_before_the_work(tmp_path: Path) -> None:
    scenes = rooms(tmp_path / "rooms")
    for path in scenes.rglob("segment.npy"):
        np.save(path.with_name("segment200.npy"), np.full(len(np.load(path)), 150, np.int16))
    values = finetune_config().model_dump()
    values["data"]["label_field"] = "segment200"
    with pytest.raises(PresetError, match="class 150 in 'segment200'"):
        finetune.run(FinetuneConfig.model_validate(values), scenes=scenes, out=tmp_path)
    values["model"]["head"]["n_classes"] = 200  # not the number of the store, whose names are of 'segment'
    assert completed(FinetuneConfig.model_validate(values), open_folder(scenes), None)


def test_scenes_of_other_classes_are_not_evaluated(tmp_path: Path) -> None:
    scenes = rooms(tmp_path / "rooms")
    run = finetune.run(finetune_config(steps=1, evaluate_every=0), scenes=scenes, out=tmp_path, name="run")
    for path in scenes.rglob("segment.npy"):
        np.save(path, np.full(len(np.load(path)), 9, np.int16))
    with pytest.raises(
        SceneError, match=r"has class 9 in 'segment' at 100\.0% of its points, the model knows 0 to 2"
    ):
        evaluate.run(run.folder, scenes=scenes)


def test_classes_of_the_same_number_in_another_order_are_not_compared(tmp_path: Path) -> None:
    scenes = rooms(tmp_path / "rooms")
    run = finetune.run(finetune_config(steps=1, evaluate_every=0), scenes=scenes, out=tmp_path, name="run")
    info = yaml.safe_load((scenes / "dataset.yaml").read_text())
    info["class_names"] = ["floor", "wall", "ceiling"]
    (scenes / "dataset.yaml").write_text(yaml.safe_dump(info))
    with pytest.raises(SceneError, match=r"class 0 is 'floor' in the scenes of .* and 'wall' in those"):
        evaluate.run(run.folder, scenes=scenes)
    info["class_names"] = ["wall", "floor"]
    (scenes / "dataset.yaml").write_text(yaml.safe_dump(info))
    with pytest.raises(SceneError, match="class 2 is none in the scenes"):
        evaluate.run(run.folder, scenes=scenes)


def test_a_pretraining_checkpoint_is_measured_by_what_it_renders(tmp_path: Path, encoder: Path) -> None:
    numbers = evaluate.run(encoder, scenes=tmp_path / "rooms", width=16)
    assert numbers.kind == "pretext" and len(numbers.views) == 2
    psnr = sum(view["psnr"] for view in numbers.views) / 2
    assert numbers.metrics["psnr"] == pytest.approx(psnr)
    assert all(image.is_file() for image in numbers.images)


@pytest.mark.parametrize("option", ["submission", "export"])
def test_files_of_classes_are_not_promised_for_a_pretraining_checkpoint(
    tmp_path: Path, encoder: Path, option: str
) -> None:
    with pytest.raises(SceneError, match=f"no classes for --{option}"):
        evaluate.run(encoder, scenes=tmp_path / "rooms", **{option: tmp_path / "asked"})  # pyright: ignore[reportArgumentType]


def test_a_split_without_scenes_is_named(tmp_path: Path, encoder: Path) -> None:
    with pytest.raises(SceneError, match="no scenes in 'test'"):
        evaluate.run(encoder, scenes=tmp_path / "rooms", split="test")


def _from_checkpoint(**data: object) -> FinetuneConfig:
    """A preset that leaves encoder, voxels, features and classes open."""
    values = finetune_config(steps=1, evaluate_every=0).model_dump(exclude_unset=True)
    values["model"] = {"kind": "segmentation"}
    values["data"] = {key: item for key, item in values["data"].items() if key != "voxel"} | data
    return FinetuneConfig.model_validate(values)


def test_what_a_preset_leaves_open_is_taken_from_the_checkpoint(tmp_path: Path, encoder: Path) -> None:
    """Encoder, voxels, features and folder of scenes; the classes are those of the scenes."""
    folder = finetune.run(_from_checkpoint(), checkpoint=encoder, out=tmp_path, name="open").folder
    stored = load_checkpoint(folder / "checkpoints" / "last.pth").config
    before = load_checkpoint(encoder / "checkpoints" / "last.pth").config
    assert stored["model"]["encoder"] == before["model"]["encoder"]
    assert stored["model"]["head"]["n_classes"] == 3
    assert stored["data"]["voxel"] == before["data"]["voxel"] != FinetuneConfig().data.voxel.model_dump()
    assert stored["data"]["features"] == before["data"]["features"]
    assert stored["scenes"] == before["scenes"] == str(tmp_path / "rooms")
    load_model(folder)


def test_what_a_preset_says_goes_before_the_checkpoint(tmp_path: Path, encoder: Path) -> None:
    config = _from_checkpoint(voxel={"size": 0.3})
    folder = finetune.run(config, checkpoint=encoder, out=tmp_path, name="own").folder
    assert load_checkpoint(folder / "checkpoints" / "last.pth").config["data"]["voxel"]["size"] == 0.3
    with pytest.raises(PresetError, match="give 4 channels"):
        finetune.run(_from_checkpoint(features=["color", "height"]), checkpoint=encoder, out=tmp_path)


def test_no_encoder_and_no_checkpoint_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match="no encoder") as caught:
        finetune.run(_from_checkpoint(), scenes=rooms(tmp_path / "rooms"), out=tmp_path)
    assert "--set model.encoder.kind" in str(caught.value.fix)


def test_a_recorded_folder_that_is_gone_names_the_option(tmp_path: Path, encoder: Path) -> None:
    (tmp_path / "rooms").rename(tmp_path / "moved")
    for work in (
        lambda: finetune.run(_from_checkpoint(), checkpoint=encoder, out=tmp_path),
        lambda: evaluate.run(encoder),
        lambda: render.run(RenderConfig(), encoder, scene="room0", out=tmp_path / "frames"),
        lambda: reconstruct.run(
            ReconstructConfig(), scene="room0", checkpoint=encoder, out=tmp_path / "a.ply"
        ),
    ):
        with pytest.raises(SceneError, match="rooms") as caught:
            work()
        assert "--data" in str(caught.value.fix)


def test_scenes_of_one_split_are_trained_on_without_validation(tmp_path: Path) -> None:
    scenes = rooms(tmp_path / "rooms")
    shutil.rmtree(scenes / "val")
    result = finetune.run(finetune_config(steps=1), scenes=scenes, out=tmp_path, name="one")
    assert result.steps == 1 and result.metrics == {}
