"""Encoders side by side, against scikit-learn on features that are computed by other calls."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import jaccard_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ponderv2.data.config import LabelBudgetConfig
from ponderv2.data.label_budget import apply_label_budget
from ponderv2.data.scene_folder import open_folder
from ponderv2.errors import CheckpointError, PresetError, SceneError
from ponderv2.tasks.checkpoints import load
from ponderv2.workflows import evaluate, finetune, pretrain
from ponderv2.workflows.config import FinetuneConfig, ProtocolsConfig
from ponderv2.workflows.protocols import ComparisonRequest, ComparisonResult, run
from tests.workflows.tiny import finetune_config, pretrain_config, rooms


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-training run `pre` of two steps on two rooms, and these; not to be changed."""
    folder = tmp_path_factory.mktemp("protocols")
    config = pretrain_config(steps=2, evaluate_every=0)
    pretrain.run(config, scenes=rooms(folder / "rooms"), out=folder, name="pre")
    return folder


@pytest.fixture
def encoder(folder: Path) -> Path:
    return folder / "pre"


@pytest.fixture
def scenes(folder: Path, tmp_path: Path) -> Path:
    """The rooms, to be changed."""
    return shutil.copytree(folder / "rooms", tmp_path / "rooms")


def compared(
    *checkpoints: Path,
    protocols: str,
    baselines: bool = False,
    scenes: Path | None = None,
    **settings: dict,
) -> ComparisonResult:
    config = ProtocolsConfig.model_validate(settings)
    request = ComparisonRequest(tuple(protocols.split(",")), baselines, config, device="cpu")
    return run(checkpoints, request, scenes=scenes)


def voxels_and_points(checkpoint: Path, scenes: Path, split: str) -> tuple[list, ...]:
    """Features and first labels of the voxels of each scene, and what leads to all points."""
    loaded, store = load(checkpoint), open_folder(scenes)
    features, labels, inverses, truths = [], [], [], []
    for name in store.names(split):
        cloud = store.read(name, split).cloud
        voxels, truth = loaded.voxel_features(cloud), cloud.labels["segment"].numpy()
        inverse = voxels.inverse.numpy()
        first = np.array([np.flatnonzero(inverse == number)[0] for number in range(len(voxels.feature))])
        features.append(voxels.feature.numpy())
        labels.append(truth[first])
        inverses.append(inverse)
        truths.append(truth)
    return features, labels, inverses, truths


def test_probes_are_those_of_scikit_learn_on_the_same_features(folder: Path, encoder: Path) -> None:
    scenes = folder / "rooms"
    result = compared(encoder, protocols="linear,knn", linear={"penalty": 1.0, "balanced": False})
    feature, label, *_ = voxels_and_points(encoder, scenes, "train")
    queries, _, inverses, truths = voxels_and_points(encoder, scenes, "val")
    models = {
        "knn": KNeighborsClassifier(
            20, weights=lambda distance: np.exp((1 - distance) / 0.07), metric="cosine", algorithm="brute"
        ),
        "linear": make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=5000, tol=1e-8)),
    }
    assert [row["protocol"] for row in result.protocols] == ["knn", "linear"]
    for row in result.protocols:
        model = models[row["protocol"]].fit(np.concatenate(feature), np.concatenate(label))
        found = np.concatenate(
            [model.predict(query)[inverse] for query, inverse in zip(queries, inverses, strict=True)]
        )
        truth = np.concatenate(truths)
        expected = jaccard_score(truth, found, average=None, zero_division=0)
        assert row["miou"] == pytest.approx(expected.mean(), abs=2e-3)
        assert row["allacc"] == pytest.approx((truth == found).mean(), abs=2e-3)
        assert row["labelled_voxels"] == sum(map(len, label)) and row["milliseconds_per_scene"] > 0
    knn, linear = result.protocols
    assert (knn["trained_parameters"], linear["trained_parameters"]) == (0, 3 * 8 + 3)
    backbone = sum(one.numel() for one in load(encoder).model.backbone.parameters())
    assert knn["parameters"] == backbone and linear["parameters"] == backbone + 27


def test_classes_that_follow_from_normals_are_found_in_the_raw_input(encoder: Path) -> None:
    result = compared(encoder, protocols="knn,linear,purity", baselines=True)
    names = ["pre", "random encoder", "color, height, normal"]
    assert [row["features"] for row in result.purity] == names
    assert [row["features"] for row in result.protocols] == names * 2
    for row in (result.protocols[2], result.protocols[5]):
        assert row["miou"] > 0.95 and row["parameters"] == row["trained_parameters"]
    assert result.purity[2]["purity"] > 0.95 > result.purity[2]["chance"]
    assert set(result.classes[0]) == {"protocol", "features", "wall", "floor", "ceiling"}


def test_a_random_encoder_is_the_same_every_time_and_of_another_seed_another(encoder: Path) -> None:
    def random_row(seed: int) -> float:
        result = compared(encoder, protocols="purity", baselines=True, data={"seed": seed})
        return result.purity[1]["purity"]

    assert random_row(0) == random_row(0) != random_row(1)


def test_a_budget_of_points_is_all_that_probes_see(scenes: Path, encoder: Path) -> None:
    """Without the other labels the result is the same to the last digit."""
    budget = LabelBudgetConfig(points_per_scene=20)
    few = compared(encoder, protocols="knn,linear", data={"budget": budget.model_dump()})
    assert [row["labelled_voxels"] for row in few.protocols] == [40, 40]
    store = open_folder(scenes)
    for name in store.names("train"):
        scene = apply_label_budget(store.read(name, "train"), budget, "segment")
        path = store.folder(name, "train") / "segment.npy"
        np.save(path, scene.cloud.labels["segment"].numpy().astype(np.int16))
    again = compared(encoder, protocols="knn,linear", scenes=scenes)
    for before, after in zip(few.protocols, again.protocols, strict=True):
        assert {**before, "milliseconds_per_scene": 0} == {**after, "milliseconds_per_scene": 0}


def test_purity_needs_one_scene_and_no_training_scenes(scenes: Path, encoder: Path) -> None:
    shutil.rmtree(scenes / "train")
    store = open_folder(scenes)
    for name in store.names("val")[1:]:
        shutil.rmtree(store.folder(name, "val"))
    settings = {"k": 5, "distance": 1.0}
    result = compared(encoder, protocols="purity", baselines=True, scenes=scenes, purity=settings)
    assert result.n_scenes == 1 and len(result.purity) == 3 and not result.protocols
    with pytest.raises(SceneError, match="no prepared scenes in split 'train'"):
        compared(encoder, protocols="knn", scenes=scenes)
    alone = compared(encoder, protocols="purity", scenes=scenes, purity={"distance": None})
    assert alone.purity[0]["points"] == 0


def test_fine_tuned_models_are_rows_of_their_protocol(folder: Path, tmp_path: Path, encoder: Path) -> None:
    tuned = finetune.run(
        finetune_config(steps=1, evaluate_every=0),
        checkpoint=encoder,
        scenes=folder / "rooms",
        out=tmp_path,
        name="tuned",
    ).folder
    result = run([encoder, tuned], ComparisonRequest(device="cpu"))
    assert [(row["protocol"], row["features"]) for row in result.protocols] == [
        ("knn", "pre"),
        ("linear", "pre"),
        ("full", "tuned"),
    ]
    alone, row = evaluate.run(tuned, device="cpu"), result.protocols[2]
    assert {name: row[name] for name in ("miou", "macc", "allacc")} == {
        name: alone.metrics[name] for name in ("miou", "macc", "allacc")
    }
    assert row["trained_parameters"] == row["parameters"] == result.protocols[1]["parameters"]
    assert row["milliseconds_per_scene"] > 0 and alone.milliseconds is None  # the second time it is cached
    decoder = finetune_config(steps=1, evaluate_every=0).model_copy(update={"protocol": "decoder"})
    finetune.run(decoder, checkpoint=encoder, scenes=folder / "rooms", out=tmp_path, name="decoder")
    both = compared(encoder, tuned, tmp_path / "decoder", protocols="decoder,full")
    assert [(one["protocol"], one["features"]) for one in both.protocols] == [
        ("decoder", "decoder"),
        ("full", "tuned"),
    ]
    assert both.protocols[0]["trained_parameters"] < both.protocols[0]["parameters"]
    # Asked for probes alone, both encoders are probed.
    both = compared(encoder, tuned, protocols="knn")
    assert [row["features"] for row in both.protocols] == ["pre", "tuned"]


def test_what_cannot_be_compared_is_refused_with_what_to_type(encoder: Path, scenes: Path) -> None:
    with pytest.raises(PresetError, match="no protocol 'nearest'") as unknown:
        compared(encoder, protocols="nearest")
    assert unknown.value.fix == "choose of: --protocols purity,knn,linear,decoder,full"
    with pytest.raises(PresetError, match="fine-tuned by the protocol 'full'") as missing:
        compared(encoder, protocols="knn,full")
    assert missing.value.fix and missing.value.fix.startswith("ponder finetune --protocol full --from ")
    with pytest.raises(SceneError, match="has no scenes in 'test'"):
        run([encoder], scenes=scenes, split="test")
    for path in (scenes / "val").rglob("segment.npy"):
        np.save(path, np.full(len(np.load(path)), -1, np.int16))
    for protocol in ("purity", "knn"):
        with pytest.raises(SceneError, match="no point of 2 scenes of 'val' has a class in 'segment'"):
            compared(encoder, protocols=protocol, scenes=scenes)


def test_a_task_without_classes_of_points_has_no_protocols(
    encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ponderv2.tasks.rendering.task.RenderingTask.protocols", ())
    with pytest.raises(CheckpointError, match="gives points no class: it has no protocols") as refused:
        compared(encoder, protocols="knn")
    assert refused.value.fix == f"ponder eval {encoder} measures what it was trained for"


def test_hidden_inputs_are_those_of_scenes_without_them(encoder: Path, scenes: Path) -> None:
    hidden = compared(encoder, protocols="purity,knn", baselines=True, data={"hide": ["color"]})
    for path in scenes.rglob("color.npy"):
        path.unlink()
    missing = compared(encoder, protocols="purity,knn", baselines=True, scenes=scenes)
    assert [row["features"] for row in hidden.purity] == ["pre", "random encoder", "height, normal"]
    assert hidden.purity == missing.purity and hidden.classes == missing.classes
    assert hidden.purity != compared(encoder, protocols="purity", baselines=True).purity


def test_probes_beside_a_fine_tuned_model_compare_its_labels(
    encoder: Path, scenes: Path, tmp_path: Path
) -> None:
    """The rooms get a second label array, of one class; the model is trained on that one."""
    for path in scenes.rglob("segment.npy"):
        np.save(path.with_name("segment1.npy"), np.zeros(len(np.load(path)), np.int16))
    info = yaml.safe_load((scenes / "dataset.yaml").read_text())
    info["other_labels"] = {"segment1": {"class_names": ["thing"], "class_colors": [[0, 0, 0]]}}
    (scenes / "dataset.yaml").write_text(yaml.safe_dump(info))
    values = finetune_config(steps=1, evaluate_every=0).model_dump()
    values["data"]["label_field"], values["model"]["head"]["n_classes"] = "segment1", 1
    config = FinetuneConfig.model_validate(values)
    finetune.run(config, checkpoint=encoder, scenes=scenes, out=tmp_path, name="tuned")
    result = run([encoder, tmp_path / "tuned"], ComparisonRequest(device="cpu"))
    assert [row["protocol"] for row in result.protocols] == ["knn", "linear", "full"]
    assert all(set(row) == {"protocol", "features", "thing"} for row in result.classes)
    assert all(row["miou"] == pytest.approx(1.0) for row in result.protocols)
