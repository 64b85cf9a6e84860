"""Files as they were published, of every kind and small: what loads computes what they were made for."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from ponder_cli.app import app
from ponderv2.config import StrictConfig
from ponderv2.errors import CheckpointError, MismatchError, OutputError
from ponderv2.models.config import PretextConfig
from ponderv2.models.pretext import PretextModel
from ponderv2.scenes.batch import Batch
from ponderv2.tasks.checkpoints import load_model, open_checkpoint
from ponderv2.tasks.instances.config import InstancesModelConfig
from ponderv2.tasks.instances.model import InstancesModel
from ponderv2.tasks.segmentation.config import SegmentationModelConfig
from ponderv2.tasks.segmentation.model import SegmentationModel
from ponderv2.tasks.task import Task
from ponderv2.training.checkpoint import Checkpoint, load_checkpoint, read_archive, save_checkpoint
from ponderv2.training.weights import compare
from ponderv2.workflows import export
from ponderv2.workflows import inspect as inspect_checkpoint

SMALL = {"base_channels": 4, "channels": [4, 6, 6, 5], "layers": [1, 2, 1, 1]}
PLAIN = {"kind": "sparse_unet", **SMALL}
NORMS = ["ScanNet", "S3DIS", "Structured3D"]
ROWS = ["Structured3D", "ScanNet", "S3DIS"]
PROMPTED = {"kind": "prompted_sparse_unet", "conditions": NORMS, "context_channels": 8, **SMALL}
INDEX = {
    "Structured3D": [*range(9), 11, *range(13, 22), 23, 25, 26, 33, 34, 35],
    "ScanNet": [*range(10), 11, 12, 13, 15, 20, 22, 24, 25, 27, 34],
    "S3DIS": [0, 1, 4, 5, 6, 7, 8, 10, 19, 29, 30, 31, 32],
}


def pretext(encoder: dict[str, Any], old: bool) -> nn.Module:
    """Pre-training of one generation: decoders of the documented widths."""
    factor = {"points_factor": 1.0 if old else 0.0}
    joint = encoder is PROMPTED
    text = {
        "kind": "text",
        "n_classes": 36 if joint else 20,
        "point_head": not old,
        "include_point_loss": False,
    }
    settings = {
        "encoder": encoder,
        "projection": {"kind": "unet3d", "out_channels": 128},
        "renderer": {"field": {"share_volume": old, "sdf": {"n_blocks": 1, **factor}}},
        "semantic": {**text, "valid_index": INDEX if joint else None},
        "conditions": ROWS if joint else ["ScanNet"],
        "context_channels": 8 if joint else 256,
    }
    return PretextModel(PretextConfig.model_validate(settings))


def segmentation(encoder: dict[str, Any], head: dict[str, Any], rows: list[str] | None = None) -> nn.Module:
    conditions = {"conditions": rows or ROWS} if encoder["kind"].startswith("prompted") else {}
    settings = {"encoder": encoder, "head": head, **conditions}
    return SegmentationModel(SegmentationModelConfig.model_validate(settings))


def instances(encoder: dict[str, Any]) -> nn.Module:
    conditions = {"conditions": ROWS} if encoder is PROMPTED else {}
    return InstancesModel(
        InstancesModelConfig.model_validate({"encoder": encoder, "n_classes": 20, **conditions})
    )


LANGUAGE = {"kind": "language", "n_texts": 36, "valid_index": INDEX}
DECOUPLED = {"kind": "decoupled", "n_classes": {"Structured3D": 25, "ScanNet": 20, "S3DIS": 13}}
KINDS = {
    "pretext joint 2024": lambda: pretext(PROMPTED, old=False),
    "pretext joint 2023": lambda: pretext(PROMPTED, old=True),
    "pretext scannet 2024": lambda: pretext(PLAIN, old=False),
    "pretext scannet 2023": lambda: pretext(PLAIN, old=True),
    "segmentor from scratch": lambda: segmentation(PLAIN, {"kind": "final", "n_classes": 20}),
    "segmentor on prompts": lambda: segmentation(PROMPTED, {"kind": "final", "n_classes": 200}),
    "language guided": lambda: segmentation(PROMPTED, LANGUAGE),
    "decoupled heads": lambda: segmentation(PROMPTED, DECOUPLED),
    "pointgroup": lambda: instances(PROMPTED),
    "pointgroup from scratch": lambda: instances(PLAIN),
}


def made(kind: str) -> nn.Module:
    """A model with random weights and statistics."""
    torch.manual_seed(7)
    model = KINDS[kind]().eval()
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2.0)
        elif value.is_floating_point() and "class_embedding" not in name and "logit_scale" not in name:
            value.normal_(std=0.3)
    return model


def published(model: nn.Module, kind: str) -> dict[str, Tensor]:
    """The entries by the documented names, written down independently of the program."""
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if name.startswith("head.final."):
            name = f"backbone.final.{name.split('.')[-1]}"
        state[name.removeprefix("head.")] = value
    if kind not in ("segmentor on prompts", "pointgroup"):
        return state
    inner = ("backbone", "embedding_table")
    return {
        f"backbone.{name}" if name.split(".")[0] in inner else name: value for name, value in state.items()
    }


def stored(path: Path, state: dict[str, Tensor], prefix: str = "module.") -> Path:
    contents = {
        "epoch": 3,
        "state_dict": {f"{prefix}{name}": value.clone() for name, value in state.items()},
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "scheduler": {"last_epoch": 3},
        "scaler": None,
        "best_metric_value": np.float64(0.77),
    }
    torch.save(contents, path)
    return path


def batch(condition: str) -> Batch:
    generator = torch.Generator().manual_seed(3)
    cells = torch.unique(torch.randint(12, (60, 3), generator=generator), dim=0)
    n = len(cells)
    return Batch(
        coord=cells * 0.02,
        grid_coord=cells,
        feature=torch.randn(n, 6, generator=generator),
        offset=torch.tensor([n]),
        segment=torch.full((n,), -1),
        units_per_metre=torch.ones(1),
        condition=condition,
        names=("x",),
    )


@torch.no_grad()
def answers(model: Any, condition: str) -> list[Tensor]:
    """What the model says of some points."""
    points = batch(condition)
    if isinstance(model, PretextModel):
        return [model.encode_points(points), model.renderer.field.sdf_decoder.fc_c[0].weight]
    return list(model.predict(points)) if isinstance(model, InstancesModel) else [model.logits(points)]


def conditions(kind: str) -> list[str]:
    return ["ScanNet"] if "scratch" in kind or "scannet" in kind else NORMS


def same(first: nn.Module, second: nn.Module, kind: str) -> None:
    for condition in conditions(kind):
        for one, other in zip(answers(first, condition), answers(second, condition), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("prefix", ["module.", ""])
@pytest.mark.parametrize("kind", KINDS)
def test_what_loads_computes_what_the_tensors_were_made_for(tmp_path: Path, kind: str, prefix: str):
    source = made(kind)
    path = stored(tmp_path / "model.pth", published(source, kind), prefix)
    loaded = open_checkpoint(path)
    model = load_model(loaded)
    assert type(model) is type(source) and loaded.step == 3
    same(source, model, kind)
    assert loaded.config["data"]["features"] == ["color", "normal"]


@pytest.mark.parametrize("kind", KINDS)
def test_export_gives_back_the_very_file(tmp_path: Path, kind: str):
    state = published(made(kind), kind)
    path = stored(tmp_path / "model.pth", state)
    result = export.run(path, tmp_path / "again.pth")
    written = read_archive(tmp_path / "again.pth")
    assert set(written) == {"epoch", "state_dict", "optimizer", "scheduler", "scaler", "best_metric_value"}
    assert result.entries == len(state)
    assert written["state_dict"].keys() == {f"module.{name}" for name in state}
    assert all(torch.equal(written["state_dict"][f"module.{name}"], value) for name, value in state.items())


@pytest.mark.parametrize(
    "kind", ["pretext joint 2024", "language guided", "segmentor from scratch", "pointgroup"]
)
def test_safetensors_come_back_as_the_same_model(tmp_path: Path, kind: str):
    source = made(kind)
    path = stored(tmp_path / "model.pth", published(source, kind))
    export.run(path, tmp_path / "model.safetensors")
    loaded = open_checkpoint(tmp_path / "model.safetensors")
    same(source, load_model(loaded), kind)
    assert loaded.config["data"]["voxel"] == {"size": 0.02}


def test_bare_tensors_in_safetensors_are_read_like_a_published_file(tmp_path: Path):
    from safetensors.torch import save_file

    state = published(made("segmentor from scratch"), "segmentor from scratch")
    save_file({name: value.contiguous() for name, value in state.items()}, str(tmp_path / "m.safetensors"))
    same(made("segmentor from scratch"), load_model(tmp_path / "m.safetensors"), "segmentor from scratch")


def test_other_orders_of_datasets_are_exported_in_the_published_one(tmp_path: Path):
    torch.manual_seed(1)
    encoder = {**PROMPTED, "conditions": ["Structured3D", "ScanNet", "S3DIS"]}
    head = {"kind": "decoupled", "n_classes": {"S3DIS": 13, "Structured3D": 25, "ScanNet": 20}}
    model = segmentation(encoder, head, ["S3DIS", "ScanNet", "Structured3D"]).eval()
    for name, value in model.state_dict().items():
        if "bns." in name and value.is_floating_point():
            value.uniform_(0.5, 1.5)
    settings = {"model": model.config.model_dump(mode="json"), "data": {}}
    save_checkpoint(tmp_path / "ours.pth", Checkpoint("segmentation", settings, model.state_dict()))
    export.run(tmp_path / "ours.pth", tmp_path / "official.pth")
    loaded = load_model(tmp_path / "official.pth")
    assert loaded.config.encoder.conditions == tuple(NORMS)  # type: ignore[union-attr]
    assert loaded.config.conditions == tuple(ROWS)
    same(model, loaded, "decoupled heads")


def test_a_linear_head_is_exported_as_the_published_last_layer(tmp_path: Path):
    torch.manual_seed(1)
    model = segmentation(PLAIN, {"kind": "linear", "n_classes": 20}).eval()
    settings = {"model": model.config.model_dump(mode="json"), "data": {}}
    save_checkpoint(tmp_path / "ours.pth", Checkpoint("segmentation", settings, model.state_dict()))
    export.run(tmp_path / "ours.pth", tmp_path / "official.pth")
    weight = read_archive(tmp_path / "official.pth")["state_dict"]["module.backbone.final.weight"]
    assert weight.shape == (20, 1, 1, 1, 5)
    # The memory of the kernel is read as [in, out].
    assert torch.equal(weight.flatten().reshape(5, 20).T, model.state_dict()["head.linear.weight"])
    loaded = load_model(tmp_path / "official.pth")
    torch.testing.assert_close(answers(loaded, "x")[0], answers(model, "x")[0])


@pytest.mark.parametrize("kind", ["language guided", "pointgroup"])
def test_a_file_of_another_shape_is_refused_with_a_table(tmp_path: Path, kind: str):
    state = published(made(kind), kind)
    name = "proj_head.weight" if kind == "language guided" else "bias_head.0.weight"
    state[name] = torch.zeros(3, 3)
    del state[next(key for key in state if key.endswith("enc.1.block0.bn1.bns.1.weight"))]
    path = stored(tmp_path / "model.pth", state)
    with pytest.raises(MismatchError) as problem:
        load_model(path)
    troubles = {row.trouble.split(" ")[0] for row in problem.value.rows}
    assert troubles == {"file", "missing"} and len(problem.value.rows) == 2
    ran = CliRunner().invoke(app, ["export", str(path), "--out", str(tmp_path / "x.pth")])
    assert ran.exit_code == 2 and "entries that do not fit" in ran.output and name in ran.output


def test_inspection_says_what_a_file_holds_and_what_fits(tmp_path: Path):
    path = stored(tmp_path / "model.pth", published(made("pretext joint 2023"), "pretext joint 2023"))
    result = inspect_checkpoint.run(path)
    assert (result.task, result.generation, result.encoder) == ("pretext", "2023", "prompted_sparse_unet")
    assert (result.datasets, result.classes, result.missing + result.unexpected) == (ROWS, 36, 0)
    ran = CliRunner().invoke(app, ["inspect", str(path), "--against", "pretrain/scannet-official"])
    assert ran.exit_code == 0 and "entries that do not fit" in ran.output
    assert "other shape" in ran.output or "file (" in ran.output


@pytest.mark.parametrize("kind", KINDS)
def test_running_statistics_are_no_parameters(tmp_path: Path, kind: str):
    """Against the model itself, which knows its parameters and its buffers apart."""
    model = made(kind)
    path = stored(tmp_path / "model.pth", published(model, kind))
    fixed = {"logit_scale", "class_embedding"}  # the first is a parameter of the published code, frozen
    state = {name: value for name, value in model.state_dict().items() if name.split(".")[-1] not in fixed}
    parameters = sum(
        value.numel() for name, value in model.named_parameters() if name.split(".")[-1] not in fixed
    )
    buffers = sum(value.numel() for value in state.values()) - parameters
    text = sum(v.numel() for n, v in model.state_dict().items() if n.endswith("class_embedding"))
    scale = sum(v.numel() for n, v in model.state_dict().items() if n.endswith("logit_scale"))
    for result in (inspect_checkpoint.run(path), export.run(path, tmp_path / "again.pth")):
        assert (result.parameters, result.buffers) == (parameters + scale, buffers + text)
        assert result.buffers > 0


class Detection(StrictConfig):
    """Settings of a task of which nothing was published."""

    kind: str = "detection"


def test_kinds_that_are_not_known_are_an_error_of_one_sentence(tmp_path: Path):
    model = made("segmentor from scratch")
    settings = {"model": model.config.model_dump(mode="json"), "data": {}}  # type: ignore[union-attr]
    save_checkpoint(tmp_path / "m.pth", Checkpoint("detection", settings, model.state_dict()))
    ran = CliRunner().invoke(app, ["export", str(tmp_path / "m.pth"), "--out", str(tmp_path / "x.pth")])
    assert ran.exit_code == 2 and "no model of a known kind but 'detection'" in ran.output
    assert "version of the program that wrote it" in ran.output
    with pytest.raises(CheckpointError, match="kind 'detection' has no published form"):
        Task.published_weights(SimpleNamespace(settings=Detection()), {})  # type: ignore[arg-type]
    assert not (tmp_path / "x.pth").exists()


def test_the_name_of_a_class_does_not_decide_what_is_exported(tmp_path: Path):
    path = stored(tmp_path / "model.pth", published(made("pointgroup"), "pointgroup"))
    name = InstancesModel.__name__
    InstancesModel.__name__ = "PointGroup"
    try:
        assert export.run(path, tmp_path / "again.pth").kind == "instances"
    finally:
        InstancesModel.__name__ = name


def test_names_with_colons_stay_whole_in_the_table():
    """Records have fields: nothing is read out of a sentence."""
    wanted = {"a: b": torch.zeros(2), "lost: file (1)": torch.zeros(1)}
    rows = compare(wanted, {"a: b": torch.zeros(3), "file (x)": torch.zeros(1)}).rows()
    assert [(row.entry, row.kind) for row in rows] == [
        ("a: b", "other shape"),
        ("lost: file (1)", "missing"),
        ("file (x)", "unexpected"),
    ]
    assert rows[0].trouble == "file (3,), model (2,)"


def test_numpy_numbers_of_either_generation_are_read(tmp_path: Path):
    stream = io.BytesIO()
    torch.save({"a": np.float64(0.25), "b": np.int32(-7), "c": np.bool_(True)}, stream)
    old = tmp_path / "old.pth"
    with zipfile.ZipFile(stream) as source, zipfile.ZipFile(old, "w") as target:
        for entry in source.infolist():
            target.writestr(entry, source.read(entry).replace(b"numpy._core.", b"numpy.core."))
    assert read_archive(old) == {"a": 0.25, "b": -7, "c": True}


def test_numpy_arrays_and_other_objects_are_not_opened(tmp_path: Path):
    for number, value in enumerate((np.zeros(3), np.datetime64("2020-01-01"), Path("x"))):
        torch.save(
            {"state_dict": {"x": torch.zeros(1)}, "best_metric_value": value}, tmp_path / f"{number}.pth"
        )
        with pytest.raises(CheckpointError):
            read_archive(tmp_path / f"{number}.pth")


def test_an_ending_that_contradicts_the_format_is_said(tmp_path: Path):
    with pytest.raises(OutputError, match=r"does not end in \.safetensors"):
        export.run(tmp_path / "a.pth", tmp_path / "b.pth", "safetensors")


def test_a_run_of_ours_survives_safetensors(tmp_path: Path):
    model = made("pretext scannet 2024")
    config = {"model": model.config.model_dump(mode="json"), "data": {"voxel": {"size": 0.05}}}  # type: ignore[union-attr]
    classes = {"names": ["a", "b"]}
    checkpoint = Checkpoint("pretext", config, model.state_dict(), step=9, classes=classes)
    save_checkpoint(tmp_path / "ours.pth", checkpoint)
    export.run(tmp_path / "ours.pth", tmp_path / "ours.safetensors")
    back = load_checkpoint(tmp_path / "ours.safetensors")
    assert (back.step, back.classes, back.config["data"]) == (9, classes, {"voxel": {"size": 0.05}})
    assert all(torch.equal(back.model[name], value) for name, value in checkpoint.model.items())
