"""How points are prepared where a file does not say it: recognised, assumed aloud, asked for, or recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn
from typer.testing import CliRunner

import ponderv2
from ponder_cli.app import app
from ponder_cli.presets import load_preset
from ponderv2.data.config import PointDataConfig
from ponderv2.datasets.s3dis import classes as s3dis
from ponderv2.datasets.structured3d import classes as structured3d
from ponderv2.encoder.kinds import build_encoder
from ponderv2.errors import CheckpointError, PresetError
from ponderv2.models.config import PretextConfig
from ponderv2.models.pretext import PretextModel
from ponderv2.tasks.checkpoints import open_checkpoint
from ponderv2.tasks.encoder_only.task import EncoderOnlyModel
from ponderv2.tasks.instances.config import InstancesModelConfig
from ponderv2.tasks.instances.model import InstancesModel
from ponderv2.tasks.loaded_model import LoadedModel
from ponderv2.tasks.segmentation.config import SegmentationModelConfig
from ponderv2.tasks.segmentation.model import SegmentationModel
from ponderv2.training.checkpoint import Checkpoint, save_checkpoint
from ponderv2.workflows import evaluate, export, features, finetune
from ponderv2.workflows import inspect as inspect_checkpoint
from ponderv2.workflows.config import FinetuneConfig
from tests.workflows.heard import Heard
from tests.workflows.tiny import finetune_config, rooms

ENCODER = {"kind": "sparse_unet", "base_channels": 8, "channels": [8, 8], "layers": [1, 1]}
RENDERS = {
    "encoder": ENCODER,
    "frame": {"kind": "cube", "cube_size": 4.0, "cells": [16, 16, 16], "box": "bounds"},
    "projection": {"kind": "conv3d", "out_channels": 8},
    "renderer": {
        "field": {"sdf": {"hidden": 8}, "color": {"hidden": 8, "n_blocks": 0}, "share_volume": True},
        "sampler": {"kind": "uniform", "n_samples": 16},
    },
}
PROMPTED = {**ENCODER, "kind": "prompted_sparse_unet", "conditions": ["ScanNet", "S3DIS", "Structured3D"]}
AS_S3DIS = {"voxel": {"size": 0.05}, "features": ["coord", "color"]}
USUAL = {"voxel": {"size": 0.02}, "features": ["color", "normal"]}


def randomised(model: nn.Module) -> nn.Module:
    for name, value in model.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(std=0.1)
    return model.eval()


def segmentor(n_classes: int, encoder: dict[str, Any] = ENCODER, head: str = "final") -> SegmentationModel:
    torch.manual_seed(0)
    settings = {"encoder": encoder, "head": {"kind": head, "n_classes": n_classes}}
    model = SegmentationModel(SegmentationModelConfig.model_validate(settings))
    randomised(model)
    return model


def published_names(model: nn.Module) -> dict[str, Tensor]:
    """Written down independently of the program."""
    state = {}
    for name, value in model.state_dict().items():
        name = name.replace("head.final.", "backbone.final.")
        state[name] = value.clone()
    return state


def published(path: Path, model: nn.Module) -> Path:
    state = {f"module.{name}": value for name, value in published_names(model).items()}
    torch.save({"epoch": 1, "state_dict": state, "optimizer": {}, "scheduler": {}}, path)
    return path


@pytest.fixture
def cloud(rng: torch.Generator) -> ponderv2.PointCloud:
    """A bumpy floor of 2 m x 2 m with normals that differ."""
    coord = torch.rand(1500, 3, generator=rng) * torch.tensor([2.0, 2.0, 0.3])
    color = (torch.rand(1500, 3, generator=rng) * 255).round()
    normal = nn.functional.normalize(torch.randn(1500, 3, generator=rng), dim=-1)
    return ponderv2.PointCloud(coord, color, normal)


@pytest.fixture
def file(tmp_path: Path, cloud: ponderv2.PointCloud) -> Path:
    np.save(tmp_path / "cloud.npy", torch.cat([cloud.coord, cloud.color, cloud.normal], dim=1).numpy())
    return tmp_path / "cloud.npy"


def expected(model: Any, cloud: ponderv2.PointCloud | Path, data: dict[str, Any]) -> Tensor:
    """Features by a model whose points are known to be prepared so."""
    cloud = ponderv2.read_cloud(cloud) if isinstance(cloud, Path) else cloud
    return LoadedModel(model, PointDataConfig.model_validate(data)).features(cloud)


def test_thirteen_classes_are_read_as_the_published_configuration_of_s3dis(tmp_path, cloud, file):
    model = segmentor(13)
    path, heard = published(tmp_path / "s3dis.pth", model), Heard()
    result = features.run(path, out=tmp_path / "f.npy", file=file, report=heard)
    right, wrong = expected(model, file, AS_S3DIS), expected(model, file, USUAL)
    assert np.array_equal(np.load(tmp_path / "f.npy"), right.numpy())
    assert not torch.allclose(right, wrong, atol=1e-2)
    assert (result.voxel_size, result.inputs) == (0.05, ["coord", "color"])
    (note,) = heard.warned
    assert "S3DIS" in note and "coord and color" in note and "5 cm" in note and "--inputs" in note
    assert len(result.notes) == 1
    opened = open_checkpoint(path)
    assert opened.classes["names"] == list(s3dis.CLASS_NAMES)


@pytest.mark.parametrize(("n_classes", "field"), [(20, None), (25, None), (200, "segment200")])
def test_other_published_segmentors_need_no_note(tmp_path, n_classes, field):
    opened = open_checkpoint(published(tmp_path / "m.pth", segmentor(n_classes)))
    data, notes = opened.data()
    assert {**data, "label_field": field} == {**USUAL, "label_field": field} and notes == ()
    assert len(opened.classes["names"]) == n_classes
    assert n_classes != 25 or opened.classes["names"] == list(structured3d.CLASS_NAMES)


def test_prompts_tell_thirteen_classes_of_a_joint_model_from_those_of_s3dis_alone(tmp_path):
    data, notes = open_checkpoint(published(tmp_path / "m.pth", segmentor(13, PROMPTED))).data()
    assert data == USUAL and notes == ()


def test_an_unknown_number_of_classes_is_assumed_aloud(tmp_path, file):
    heard = Heard()
    path = published(tmp_path / "m.pth", segmentor(7))
    features.run(path, out=tmp_path / "f.npy", file=file, report=heard)
    assert len(heard.warned) == 1 and "7 classes" in heard.warned[0] and "assuming color" in heard.warned[0]
    with pytest.warns(UserWarning, match="assuming color and normal"):
        ponderv2.load(path)


def test_the_same_numbers_in_instance_segmentation_are_assumed_aloud(tmp_path):
    torch.manual_seed(0)
    settings = {"encoder": ENCODER, "n_classes": 13}
    model = InstancesModel(InstancesModelConfig.model_validate(settings))
    assert len(open_checkpoint(published(tmp_path / "m.pth", model)).notes) == 1


def test_options_go_before_what_is_recognised(tmp_path, cloud, file):
    model = segmentor(13)
    path = published(tmp_path / "m.pth", model)
    out = tmp_path / "f.npy"
    words = [
        "features",
        str(path),
        "--cloud",
        str(file),
        "--out",
        str(out),
        "--json",
        str(tmp_path / "r.json"),
    ]
    ran = CliRunner().invoke(app, [*words, "--inputs", "color,normal", "--voxel-size", "0.02"])
    assert ran.exit_code == 0 and "warning" not in ran.output, ran.output
    assert np.array_equal(np.load(out), expected(model, file, USUAL).numpy())
    stored = json.loads((tmp_path / "r.json").read_text())
    assert (stored["voxel_size"], stored["inputs"]) == (0.02, ["color", "normal"])
    with pytest.warns(UserWarning, match="S3DIS"):  # one answer leaves the other open
        assert ponderv2.load(path, voxel_size=0.03).data.voxel.size == 0.03
    loaded = ponderv2.load(path, voxel_size=0.02, inputs=("color", "normal"))
    assert torch.equal(loaded.features(cloud), expected(model, cloud, USUAL))


@pytest.mark.parametrize(("n_inputs", "inputs"), [(3, "color"), (9, "coord,color,normal"), (4, "color,ones")])
def test_other_inputs_are_asked_for(tmp_path, cloud, file, n_inputs: int, inputs: str):
    model = segmentor(20, {**ENCODER, "in_channels": n_inputs})
    path = published(tmp_path / "m.pth", model)
    words = ["features", str(path), "--cloud", str(file), "--out", str(tmp_path / "f.npy")]
    for more in ((), ("--inputs", inputs), ("--voxel-size", "0.04")):
        ran = CliRunner().invoke(app, [*words, *more])
        assert ran.exit_code == 2 and f"takes {n_inputs} numbers per point" in ran.output
        assert "--voxel-size" in ran.output and "--inputs" in ran.output
    ran = CliRunner().invoke(app, [*words, "--inputs", inputs, "--voxel-size", "0.04"])
    assert ran.exit_code == 0, ran.output
    data = {"voxel": {"size": 0.04}, "features": inputs.split(",")}
    assert np.array_equal(np.load(tmp_path / "f.npy"), expected(model, file, data).numpy())


def test_inputs_that_do_not_fit_or_do_not_exist_are_refused(tmp_path):
    path = published(tmp_path / "m.pth", segmentor(13))
    with pytest.raises(CheckpointError, match="takes 6 numbers per point, color are 3"):
        ponderv2.load(path, inputs=("color",))
    with pytest.raises(PresetError, match="'colour' is not an input"):
        ponderv2.load(path, inputs=("colour", "normal"))
    with pytest.raises(PresetError, match="no size of -1"):
        ponderv2.load(path, voxel_size=-1.0)


def own_run(path: Path, data: dict[str, Any], head: str = "final") -> SegmentationModel:
    """A checkpoint as a run of `s3dis_semantic_scratch` leaves it, with few channels."""
    model = segmentor(13, {**ENCODER, "norm_eps": 0.01}, head)
    config = {"model": model.config.model_dump(mode="json"), "data": data, "scenes": "data/s3dis"}
    classes = {"names": list(s3dis.CLASS_NAMES), "label_field": "segment", "condition": "S3DIS"}
    save_checkpoint(path, Checkpoint("segmentation", config, model.state_dict(), step=3, classes=classes))
    return model


@pytest.mark.parametrize("head", ["final", "linear"])
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_an_export_and_back_changes_nothing(tmp_path, cloud, ending: str, head: str):
    """Also what the published container does not say: voxels, inputs, an epsilon of the encoder, classes."""
    preset = load_preset("finetune", "s3dis_semantic_scratch", None, FinetuneConfig)
    data = preset.data.model_dump(mode="json")
    assert (data["voxel"]["size"], data["features"]) == (0.05, ["coord", "color"])
    model = own_run(tmp_path / "ours.pth", data, head)
    before = ponderv2.load(tmp_path / "ours.pth")
    result = export.run(tmp_path / "ours.pth", tmp_path / f"out.{ending}")
    after = ponderv2.load(tmp_path / f"out.{ending}")
    assert after.notes == () and not [note for note in result.notes if "data." in note]
    assert torch.equal(after.features(cloud), before.features(cloud))
    assert torch.equal(before.features(cloud), expected(model, cloud, AS_S3DIS))
    assert after.data == before.data and after.classes == before.classes
    batch = _batch(before, cloud)
    assert torch.allclose(after.model.logits(batch), before.model.logits(batch), atol=1e-5)  # type: ignore[union-attr]


@torch.no_grad()
def _batch(loaded: LoadedModel, cloud: ponderv2.PointCloud) -> Any:
    from ponderv2.data.preprocess import preprocess
    from ponderv2.scenes.scene import Scene

    return preprocess(Scene("x", cloud), loaded.data, "S3DIS", "segment").batch


def test_a_note_of_the_export_names_what_the_published_code_does_otherwise(tmp_path):
    own_run(tmp_path / "ours.pth", {**USUAL, "voxel": {"size": 0.03}})
    notes = export.run(tmp_path / "ours.pth", tmp_path / "out.pth").notes
    assert any("data.voxel {'size': 0.03}" in note and "0.05" in note for note in notes)
    assert any("norm_eps 0.01" in note for note in notes)


def test_other_programs_find_only_their_own_entries_beside_ours(tmp_path):
    own_run(tmp_path / "ours.pth", AS_S3DIS)
    export.run(tmp_path / "ours.pth", tmp_path / "out.pth")
    written = torch.load(tmp_path / "out.pth", weights_only=True)
    assert set(written) - {"ponder"} == {
        *("epoch", "state_dict", "optimizer", "scheduler", "scaler", "best_metric_value")
    }
    assert "data/s3dis" not in str(written["ponder"])
    written["ponder"]["data"] = "large"
    torch.save(written, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match="'data' of the entry 'ponder'"):
        open_checkpoint(tmp_path / "bad.pth")


def test_an_assumption_is_not_turned_into_a_fact_by_exporting(tmp_path):
    path = published(tmp_path / "m.pth", segmentor(13))
    for name in ("again.pth", "again.safetensors"):
        assert len(export.run(path, tmp_path / name).notes) == 1
        assert open_checkpoint(tmp_path / name).notes == open_checkpoint(path).notes != ()


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_features_of_an_encoder_exported_alone_are_those_of_the_model(tmp_path, cloud, file, ending: str):
    model = own_run(tmp_path / "ours.pth", AS_S3DIS)
    result = export.run(tmp_path / "ours.pth", tmp_path / f"e.{ending}", encoder_only=True)
    assert result.kind == "encoder"
    heard = Heard()
    features.run(tmp_path / f"e.{ending}", out=tmp_path / "f.npy", file=file, report=heard)
    assert np.array_equal(np.load(tmp_path / "f.npy"), expected(model, file, AS_S3DIS).numpy())
    assert heard.warned == [] and isinstance(ponderv2.load(tmp_path / f"e.{ending}").model, EncoderOnlyModel)
    with pytest.raises(CheckpointError, match="encoder alone"):
        evaluate.run(tmp_path / f"e.{ending}")


@pytest.mark.filterwarnings("ignore:.*13 classes")
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize(("n_classes", "data"), [(13, AS_S3DIS), (20, USUAL)])
def test_an_encoder_cut_out_of_a_published_file_is_still_known(tmp_path, cloud, n_classes, data, ending):
    """Its classes told how its points are prepared; alone it would be taken for any encoder."""
    model = segmentor(n_classes)
    path = published(tmp_path / "m.pth", model)
    export.run(path, tmp_path / f"e.{ending}", encoder_only=True)
    opened = open_checkpoint(tmp_path / f"e.{ending}")
    assert opened.notes == open_checkpoint(path).notes and len(opened.notes) == (n_classes == 13)
    found = ponderv2.load(tmp_path / f"e.{ending}").features(cloud)
    assert torch.equal(found, expected(model, cloud, data))


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_fine_tuning_starts_from_an_encoder_exported_alone(tmp_path, ending: str):
    scenes = rooms(tmp_path / "rooms")
    data = {"voxel": {"size": 0.3}, "features": ["coord", "color"]}
    model = own_run(tmp_path / "ours.pth", data)
    export.run(tmp_path / "ours.pth", tmp_path / f"e.{ending}", encoder_only=True)
    values = finetune_config(steps=1, evaluate_every=0).model_dump(exclude_unset=True)
    values["model"] = {"kind": "segmentation", "freeze_encoder": True}
    del values["data"]["voxel"]
    config, heard = FinetuneConfig.model_validate(values), Heard()
    path = tmp_path / f"e.{ending}"
    result = finetune.run(config, checkpoint=path, scenes=scenes, out=tmp_path, name="a", report=heard)
    opened = open_checkpoint(result.checkpoint)
    assert heard.warned == [] and opened.config["data"]["voxel"]["size"] == 0.3
    assert opened.config["model"]["encoder"]["norm_eps"] == 0.01
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(opened.weights[f"backbone.{name}"], value)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_an_exported_pre_training_renders_what_it_rendered(tmp_path, cloud, ending: str):
    """With settings that the published code does not have: fixed cube, aligned volume, one convolution."""
    torch.manual_seed(0)
    config = PretextConfig.model_validate(RENDERS)
    model = randomised(PretextModel(config))
    settings = {"model": config.model_dump(mode="json"), "data": {"voxel": {"size": 0.1}}}
    save_checkpoint(tmp_path / "ours.pth", Checkpoint("pretext", settings, model.state_dict()))
    result = export.run(tmp_path / "ours.pth", tmp_path / f"out.{ending}")
    assert ending == "safetensors" or any("frame:" in note for note in result.notes)
    down = torch.tensor([[1.0, 0, 0, -1.0], [0, -1.0, 0, 1.0], [0, 0, -1.0, 1.3], [0, 0, 0, 1.0]])
    intrinsics = torch.tensor([[10.0, 0, 5.5], [0, 10.0, 3.5], [0, 0, 1.0]])
    camera = ponderv2.Camera(intrinsics, down, width=12, height=8)
    views = [
        ponderv2.load(tmp_path / name).encode(cloud).render(camera) for name in ("ours.pth", f"out.{ending}")
    ]
    assert torch.equal(views[0].color, views[1].color) and torch.equal(views[0].depth, views[1].depth)
    assert float(views[0].color.std()) > 0


PREFIXES = (
    "",
    "module.",
    "backbone.",
    "module.backbone.",
    "backbone.backbone.",
    "model.backbone.",
    "encoder.",
)
PLACES = [
    *(("bare", prefix) for prefix in PREFIXES),
    *(("model_state_dict", prefix) for prefix in ("", "module.")),
    *(("safetensors", prefix) for prefix in ("", "model.backbone.")),
]


@pytest.mark.parametrize(("place", "prefix"), PLACES)
def test_a_bare_encoder_gives_features_whatever_stands_before_its_names(tmp_path, file, place, prefix):
    from safetensors.torch import save_file

    model = segmentor(20)
    state = {
        f"{prefix}{name}": value.clone().contiguous() for name, value in model.backbone.state_dict().items()
    }
    path = tmp_path / ("m.safetensors" if place == "safetensors" else "m.pth")
    if place == "safetensors":
        save_file(state, str(path))
    else:
        torch.save(state if place == "bare" else {place: state, "epoch": 3}, path)
    heard = Heard()
    features.run(path, out=tmp_path / "f.npy", file=file, report=heard)
    assert np.array_equal(np.load(tmp_path / "f.npy"), expected(model, file, USUAL).numpy())
    assert len(heard.warned) == 1 and "an encoder alone" in heard.warned[0]


def test_a_bare_prompted_encoder_with_its_prompts_needs_no_note(tmp_path, cloud):
    model = segmentor(20, PROMPTED)
    state = {k: v for k, v in model.state_dict().items() if k.startswith(("backbone.", "embedding_table."))}
    torch.save(state, tmp_path / "m.pth")
    loaded = ponderv2.load(tmp_path / "m.pth")
    assert loaded.notes == ()
    for name in PROMPTED["conditions"]:
        rows = {"ScanNet": 1, "S3DIS": 2, "Structured3D": 0}  # of the published table, in another order
        table = model.embedding_table.weight.data.clone()
        swapped = segmentor(20, PROMPTED)
        swapped.load_state_dict(model.state_dict())
        swapped.embedding_table.weight.data = table[[rows[one] for one in PROMPTED["conditions"]]]
        right = LoadedModel(swapped, PointDataConfig.model_validate(USUAL)).features(cloud, name)
        assert torch.equal(loaded.features(cloud, name), right)


def test_a_file_with_two_encoders_names_them(tmp_path):
    state = segmentor(20).backbone.state_dict()
    both = {
        f"{who}.backbone.{name}": value for who in ("student", "teacher") for name, value in state.items()
    }
    torch.save({"state_dict": both}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=r"several encoders: student\.backbone\., teacher\.backbone\."):
        open_checkpoint(tmp_path / "m.pth")


def test_a_classifier_of_scenes_has_no_feature_per_point(tmp_path):
    pooled = {**ENCODER, "pool_scenes": True, "n_classes": 0}
    torch.manual_seed(0)
    from ponderv2.encoder.config import SparseUNetConfig

    torch.save(build_encoder(SparseUNetConfig.model_validate(pooled)).state_dict(), tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match="classifier of scenes"):
        ponderv2.load(tmp_path / "m.pth")


def test_fine_tuning_takes_voxels_and_inputs_of_the_published_file(tmp_path):
    """And says when the settings give the encoder something else."""
    scenes = rooms(tmp_path / "rooms")
    path = published(tmp_path / "m.pth", segmentor(13))
    values = finetune_config(steps=1, evaluate_every=0).model_dump(exclude_unset=True)
    values["model"] = {"kind": "segmentation"}
    del values["data"]["voxel"]
    heard = Heard()
    config = FinetuneConfig.model_validate(values)
    result = finetune.run(config, checkpoint=path, scenes=scenes, out=tmp_path, name="a", report=heard)
    stored = open_checkpoint(result.checkpoint).config
    assert (stored["data"]["voxel"]["size"], stored["data"]["features"]) == (0.05, ["coord", "color"])
    assert len(heard.warned) == 1 and "S3DIS" in heard.warned[0] and "--set data.features" in heard.warned[0]
    values["data"] |= {"voxel": {"size": 0.2}, "features": ["color", "normal"]}
    heard = Heard()
    config = FinetuneConfig.model_validate(values)
    finetune.run(config, checkpoint=path, scenes=scenes, out=tmp_path, name="b", report=heard)
    assert heard.warned == ["the encoder was trained on coord, color; the settings give it color, normal"]
    assert any("voxels of 0.05 m, the settings have 0.2" in text for text in heard.noted)


def test_a_published_model_is_measured_with_its_own_voxels(tmp_path):
    scenes = rooms(tmp_path / "rooms")
    info = yaml.safe_load((scenes / "dataset.yaml").read_text())
    info |= {"class_names": list(s3dis.CLASS_NAMES), "class_colors": []}
    (scenes / "dataset.yaml").write_text(yaml.safe_dump(info))
    heard = Heard()
    path = published(tmp_path / "m.pth", segmentor(13))
    result = evaluate.run(path, scenes=scenes, out=tmp_path / "out", report=heard)
    assert [row["class"] for row in result.classes] == list(s3dis.CLASS_NAMES)
    assert len(result.notes) == 1 and "5 cm" in heard.warned[0]


def test_inspection_says_what_is_assumed(tmp_path):
    result = inspect_checkpoint.run(published(tmp_path / "m.pth", segmentor(13)))
    assert (result.inputs, result.voxel_size, result.classes) == (["coord", "color"], 0.05, 13)
    assert len(result.notes) == 1
    bare = inspect_checkpoint.run(published(tmp_path / "n.pth", segmentor(20, {**ENCODER, "in_channels": 4})))
    assert (bare.inputs, bare.voxel_size, bare.in_channels) == ([], None, 4)
