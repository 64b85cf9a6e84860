"""Protocols of fine-tuning, and heads that start as a probe, against scikit-learn and untouched weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ponderv2.data.config import LabelledDataConfig
from ponderv2.data.datasets import LabelledDataset
from ponderv2.data.scene_folder import open_folder
from ponderv2.encoder.config import SparseUNetConfig
from ponderv2.errors import PresetError
from ponderv2.io.timm_library import load_timm
from ponderv2.tasks.checkpoints import load_model, open_checkpoint
from ponderv2.tasks.kinds import task_of
from ponderv2.tasks.segmentation.model import SegmentationModel
from ponderv2.tasks.segmentation.task import SegmentationTask
from ponderv2.training.checkpoint import load_checkpoint
from ponderv2.training.distributed import Member, free_port
from ponderv2.workflows import evaluate, finetune, pretrain
from ponderv2.workflows.config import FinetuneConfig
from ponderv2.workflows.finetune_protocols import with_protocol
from ponderv2.workflows.training_runs import RunRequest, _train_as_member
from tests.scenes.closed_form_room import write_store
from tests.training.processes import run_ranks
from tests.workflows.heard import Heard
from tests.workflows.tiny import finetune_config, pretrain_config


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `rooms` (three to train on) and `pre`, a pre-training run of two steps."""
    folder = tmp_path_factory.mktemp("protocols")
    write_store(folder / "rooms", n_scenes=3, n_points=500, splits=("train", "val"))
    pretrain.run(pretrain_config(steps=2, evaluate_every=0), scenes=folder / "rooms", out=folder, name="pre")
    return folder


def _config(data: dict[str, Any] | None = None, model: dict[str, Any] | None = None, **values: Any):
    base = finetune_config(steps=2, evaluate_every=0, save_every=100).model_dump(mode="json")
    base["data"] |= {"mix_probability": 0.0} | (data or {})
    base["model"] |= model or {}
    return FinetuneConfig.model_validate(base | values)


def _instances(**values: Any) -> FinetuneConfig:
    base = _config().model_dump(mode="json")
    encoder = base["model"]["encoder"]
    base["model"] = {"kind": "instances", "encoder": encoder, "n_classes": 3, "ignored_classes": [1]}
    return FinetuneConfig.model_validate(base | values)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "checkpoints" / "last.pth").model


def test_a_linear_probe_is_the_logistic_regression_of_scikit_learn(work: Path, tmp_path: Path) -> None:
    """Features are computed here from the checkpoint, labels are all of three rooms."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    heard = Heard()
    result = finetune.run(
        _config(protocol="linear"),
        checkpoint=work / "pre",
        scenes=work / "rooms",
        out=tmp_path,
        name="probe",
        report=heard,
    )
    note = next(text for text in heard.noted if text.startswith("head fitted"))
    assert "1500 labelled points of 3 scenes" in note and not heard.warned
    penalty = float(note.split("penalty ")[1].split(",")[0])
    assert result.steps == 0 and result.best["step"] == 0

    model = load_model(tmp_path / "probe")
    assert isinstance(model, SegmentationModel)
    settings = LabelledDataConfig.model_validate(load_checkpoint(result.checkpoint).config["data"])
    feature, label = _features(model, LabelledDataset(open_folder(work / "rooms"), "train", settings))
    scaler = preprocessing.StandardScaler().fit(feature)
    power = {"none": 0.0, "by the root": 0.5, "balanced": 1.0}
    exponent = next(value for name, value in power.items() if f"class weights {name}" in note)
    weights = (len(label) / (3 * np.bincount(label))) ** exponent
    truth = linear_model.LogisticRegression(
        C=1 / penalty, class_weight=dict(enumerate(weights)), tol=1e-8, max_iter=5000
    ).fit(scaler.transform(feature), label)
    with torch.no_grad():
        ours = model.head(torch.from_numpy(feature)).softmax(1).numpy()
    np.testing.assert_allclose(ours, truth.predict_proba(scaler.transform(feature)), atol=2e-3)
    numbers = evaluate.run(tmp_path / "probe", scenes=work / "rooms")
    assert numbers.metrics["miou"] == pytest.approx(result.best["miou"])


@torch.no_grad()
def _features(model: SegmentationModel, data: LabelledDataset) -> tuple[np.ndarray, np.ndarray]:
    """Of every point of all scenes."""
    features, labels = [], []
    for index in range(len(data)):
        scene = data.training_scene(index)
        whole = data.whole(scene)
        features.append(model.encode_points(whole.batch)[whole.voxels.inverse])
        labels.append(scene.cloud.labels[data.label_field])
    return torch.cat(features).numpy(), torch.cat(labels).numpy()


def test_a_linear_probe_changes_nothing_but_the_head(work: Path, tmp_path: Path) -> None:
    for name in ("one", "again"):
        finetune.run(
            _config(protocol="linear"),
            checkpoint=work / "pre",
            scenes=work / "rooms",
            out=tmp_path,
            name=name,
        )
    before, after, again = _weights(work / "pre"), _weights(tmp_path / "one"), _weights(tmp_path / "again")
    encoder = [name for name in after if name.startswith("backbone.")]
    assert encoder and all(torch.equal(after[name], before[name]) for name in encoder)
    assert all(torch.equal(after[name], again[name]) for name in after)


def test_only_the_labels_of_the_budget_are_fitted(work: Path, tmp_path: Path) -> None:
    heard = Heard()
    finetune.run(
        _config({"budget": {"points_per_scene": 20, "scenes": 2}}, protocol="linear"),
        checkpoint=work / "pre",
        scenes=work / "rooms",
        out=tmp_path,
        name="few",
        report=heard,
    )
    assert any("fitted to 40 labelled points of 2 scenes" in text for text in heard.noted)


def test_a_random_encoder_is_probed_with_statistics_of_the_data(work: Path, tmp_path: Path) -> None:
    finetune.run(_config(protocol="linear"), scenes=work / "rooms", out=tmp_path, name="random")
    means = [value for name, value in _weights(tmp_path / "random").items() if "running_mean" in name]
    assert means and all(float(value.abs().max()) > 0 for value in means)


def test_with_a_frozen_encoder_part_the_decoder_is_trained(work: Path, tmp_path: Path) -> None:
    config = _config(protocol="decoder")
    finetune.run(config, checkpoint=work / "pre", scenes=work / "rooms", out=tmp_path, name="decoder")
    before, after = _weights(work / "pre"), _weights(tmp_path / "decoder")
    for name, value in after.items():
        if name.startswith(("backbone.conv_input.", "backbone.down.", "backbone.enc.")):
            assert torch.equal(value, before[name]), name
    changed = {
        name.split(".")[1] for name, value in after.items()
        if name.startswith("backbone.") and not torch.equal(value, before[name])
    }  # fmt: skip
    assert changed == {"up", "dec"}
    moved = [name for name in after if name.startswith("backbone.dec.") and "running_mean" in name]
    assert moved and all(not torch.equal(after[name], before[name]) for name in moved)
    evaluate.run(tmp_path / "decoder", scenes=work / "rooms")


def test_what_has_no_decoder_says_so() -> None:
    encoder = SparseUNetConfig(pool_scenes=True)
    config = FinetuneConfig(protocol="decoder")
    config = config.model_copy(update={"model": config.model.model_copy(update={"encoder": encoder})})
    with pytest.raises(PresetError, match="no decoder") as caught:
        with_protocol(config, task_of(config.model))
    assert "--protocol linear" in str(caught.value.fix)


def test_a_head_starts_as_a_probe_from_a_checkpoint_and_at_random_from_scratch(
    work: Path, tmp_path: Path
) -> None:
    """One step at a rate of nearly zero shows the start."""
    training = _config().training.model_dump(mode="json") | {
        "steps": 1, "optimiser": {"kind": "sgd", "rate": 1e-12, "weight_decay": 0.0}
    }  # fmt: skip
    scenes, heads = work / "rooms", {}
    for name, start, init in (
        ("probe", work / "pre", "auto"),
        ("random", work / "pre", "random"),
        ("scratch", None, "auto"),
    ):
        config = _config(model={"head_init": init}, training=training)
        finetune.run(config, checkpoint=start, scenes=scenes, out=tmp_path, name=name)
        heads[name] = _weights(tmp_path / name)["head.linear.weight"]
    finetune.run(
        _config(protocol="linear"), checkpoint=work / "pre", scenes=scenes, out=tmp_path, name="linear"
    )
    torch.testing.assert_close(heads["probe"], _weights(tmp_path / "linear")["head.linear.weight"])
    torch.testing.assert_close(heads["random"], heads["scratch"])
    assert not torch.allclose(heads["probe"], heads["random"])


def test_what_is_resumed_is_not_fitted_again(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config()
    finetune.run(config, checkpoint=work / "pre", scenes=work / "rooms", out=tmp_path, name="run")

    def refuse(*_: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(SegmentationTask, "fit_head", refuse)
    longer = config.model_copy(update={"training": config.training.model_copy(update={"steps": 3})})
    result = finetune.run(
        longer, checkpoint=work / "pre", scenes=work / "rooms", out=tmp_path, name="run", resume=True
    )
    assert result.steps == 3


def test_norms_are_recalibrated_on_the_training_scenes_where_asked(work: Path, tmp_path: Path) -> None:
    """Far from what two steps of pre-training left, and as an encoder alone is calibrated."""
    config = _config(model={"recalibrate_norms": True}, protocol="linear")
    finetune.run(config, checkpoint=work / "pre", scenes=work / "rooms", out=tmp_path, name="calibrated")
    before, after = _weights(work / "pre"), _weights(tmp_path / "calibrated")
    statistics = [name for name in after if name.startswith("backbone.") and "running_" in name]
    others = [name for name in after if name.startswith("backbone.") and name not in statistics]
    assert not any(torch.equal(after[name], before[name]) for name in statistics)
    assert all(torch.equal(after[name], before[name]) for name in others if "num_batches" not in name)


def test_a_frozen_encoder_from_scratch_calibrates_the_branch_without_weights(
    work: Path, tmp_path: Path
) -> None:
    """The branch of images starts from a file, whose statistics apply; that of points is random."""
    torch.manual_seed(3)
    file = load_timm().create_model("test_resnet", num_classes=0).state_dict()
    torch.save(file, tmp_path / "weights.pth")
    branches = {
        "kind": "points_and_images",
        "points": _config().model_dump(mode="json")["model"]["encoder"],
        "images": {
            "network": "test_resnet",
            "weights": str(tmp_path / "weights.pth"),
            "used_stages": [3],
            "n_maps": 1,
            "channels": 8,
        },
    }
    images = {"n_views": 1, "width": 64, "height": 64}
    config = _config({"images": images}, {"encoder": branches, "freeze_encoder": True})
    finetune.run(config, scenes=work / "rooms", out=tmp_path, name="frozen")
    found = _weights(tmp_path / "frozen")
    variances = {name: value for name, value in found.items() if name.endswith("running_var")}
    of_points = [value for name, value in variances.items() if name.startswith("backbone.points.")]
    assert of_points and not any(torch.equal(value, torch.ones_like(value)) for value in of_points)
    taken = {f"backbone.images.network.{name}": value for name, value in file.items()}
    assert len(variances) > len(of_points)
    assert all(torch.equal(found[name], value) for name, value in taken.items() if name in found)
    assert set(variances) - set(taken) == {name for name in variances if name.startswith("backbone.points.")}


def test_the_heads_of_instances_are_fitted(work: Path, tmp_path: Path) -> None:
    """Every point of these rooms is an instance of its own, at offset zero."""
    heard = Heard()
    result = finetune.run(
        _instances(protocol="linear"),
        checkpoint=work / "pre",
        scenes=work / "rooms",
        out=tmp_path,
        name="instances",
        report=heard,
    )
    assert result.steps == 0
    assert any(text.startswith("head of classes fitted to 1500") for text in heard.noted)
    note = next(text for text in heard.noted if text.startswith("head of offsets fitted"))
    assert "mean error 0.00 m" in note
    evaluate.run(tmp_path / "instances", scenes=work / "rooms")


def test_a_language_head_starts_as_a_probe(work: Path, tmp_path: Path) -> None:
    linear = _config(protocol="linear")
    language = _config(
        model={"head": {"kind": "language", "n_texts": 5, "valid_index": {"rooms": [4, 0, 2]}}},
        protocol="linear",
    )
    condition = open_folder(work / "rooms").info.name
    values = language.model_dump(mode="json")
    values["model"]["head"]["valid_index"] = {condition: [4, 0, 2]}
    found = {}
    for name, config in (("linear", linear), ("language", FinetuneConfig.model_validate(values))):
        found[name] = finetune.run(
            config, checkpoint=work / "pre", scenes=work / "rooms", out=tmp_path, name=name
        ).best["miou"]
    assert found["language"] == pytest.approx(found["linear"], abs=0.02)


def test_a_scene_that_cannot_be_read_is_left_out_of_the_fit(work: Path, tmp_path: Path) -> None:
    scenes = tmp_path / "rooms"
    shutil.copytree(work / "rooms", scenes)
    (sorted((scenes / "train").iterdir())[-1] / "coord.npy").write_bytes(b"damaged")
    heard = Heard()
    finetune.run(
        _config(protocol="linear"),
        checkpoint=work / "pre",
        scenes=scenes,
        out=tmp_path,
        name="run",
        report=heard,
    )
    assert len(heard.warned) == 1 and "left out of the fit of the head" in heard.warned[0]
    assert any("1000 labelled points of 2 scenes" in text for text in heard.noted)


def _as_rank(rank: int, port: int, request: RunRequest) -> list[str]:
    torch.set_num_threads(1)
    heard = Heard()
    _train_as_member(Member(rank, request.devices, port), request, finetune.make_job, heard)
    torch.distributed.destroy_process_group()
    return [text for text in heard.noted if "fitted to" in text]


@pytest.mark.parametrize("protocol", ["linear", "full"])
def test_two_processes_with_unequal_work_fit_the_head_of_one(
    work: Path, tmp_path: Path, protocol: str
) -> None:
    """Three scenes for two processes."""
    finetune.run(
        _config(protocol=protocol), checkpoint=work / "pre", scenes=work / "rooms", out=tmp_path, name="one"
    )
    config = FinetuneConfig.model_validate(load_checkpoint(tmp_path / "one/checkpoints/last.pth").config)
    request = RunRequest(config, tmp_path / "two", start=open_checkpoint(work / "pre"), devices=2)
    notes = run_ranks(_as_rank, 2, free_port(), request)
    assert len(notes[0]) == 1 and notes[0] == notes[1]
    one, two = _weights(tmp_path / "one"), _weights(tmp_path / "two")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize(
    "values",
    [
        {"protocol": "linear"},
        {"model": {"kind": "segmentation", "head_init": "probe"}},
        {"model": {"kind": "segmentation", "head_init": "probe"}, "protocol": "decoder"},
    ],
)
def test_a_task_whose_head_cannot_be_fitted_says_so(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SegmentationTask, "fit_head", None)
    config = FinetuneConfig.model_validate(values)
    with pytest.raises(PresetError, match="probe") as caught:
        with_protocol(config, task_of(config.model))
    assert caught.value.fix


@pytest.mark.parametrize(("shape", "is_brought"), [((512, 96), True), ((256, 96), False), (None, False)])
def test_a_projection_that_a_checkpoint_brings_is_kept(
    shape: tuple[int, int] | None, is_brought: bool
) -> None:
    """As models that were pre-trained with text targets do, for heads of their width."""
    stored = {} if shape is None else {"proj_head.weight": torch.zeros(shape)}
    model = {
        "kind": "segmentation",
        "encoder": {"kind": "sparse_unet"},
        "head": {"kind": "language", "n_texts": 20},
    }
    config = FinetuneConfig.model_validate({"model": model})
    assert task_of(config.model).brings_head(stored) is is_brought
    linear = FinetuneConfig.model_validate(
        {"model": {"kind": "segmentation", "encoder": {"kind": "sparse_unet"}}}
    )
    assert not task_of(linear.model).brings_head(stored)
