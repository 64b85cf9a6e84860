"""Few labels: who keeps them."""

from __future__ import annotations

import os
import pickle
import shutil
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ponderv2.data.config import LabelBudgetConfig, LabelledDataConfig, PretrainDataConfig
from ponderv2.data.datasets import LabelledDataset
from ponderv2.data.label_budget import apply_label_budget, budget_scenes
from ponderv2.data.pretrain_dataset import PretrainDataset
from ponderv2.data.scene_folder import open_folder
from ponderv2.errors import SceneError
from ponderv2.scenes.batch import Batch
from ponderv2.scenes.scene import PointCloud, Scene
from ponderv2.store.store import SceneStore
from tests.scenes.closed_form_room import write_store

NAMES = tuple(f"room{i:02d}" for i in range(12))


def scene(name: str = "room", n_labelled: int = 60) -> Scene:
    segment = torch.arange(100) % 7
    segment[n_labelled:] = -1
    zeros = torch.zeros(100, 3)
    return Scene(name, PointCloud(zeros, zeros, zeros, {"segment": segment}))


def kept(which: Scene, n: int, seed: int = 0) -> set[int]:
    spent = apply_label_budget(which, LabelBudgetConfig(points_per_scene=n, seed=seed), "segment")
    return set(torch.nonzero(spent.cloud.labels["segment"] >= 0)[:, 0].tolist())


def test_no_budget_changes_nothing() -> None:
    room = scene()
    assert apply_label_budget(room, LabelBudgetConfig(), "segment") is room


def test_kept_labels_are_the_true_ones() -> None:
    room = scene()
    spent = apply_label_budget(room, LabelBudgetConfig(points_per_scene=10), "segment").cloud.labels
    labelled = spent["labelled"] > 0
    assert int(labelled.sum()) == 10
    assert torch.equal(spent["segment"][labelled], room.cloud.labels["segment"][labelled])
    assert (spent["segment"][~labelled] == -1).all() and (spent["segment"][labelled] >= 0).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 5))
def test_larger_budgets_hold_the_smaller_ones(few: int, many: int, seed: int) -> None:
    few, many = min(few, many), max(few, many)
    assert kept(scene(), few, seed) <= kept(scene(), many, seed)
    assert len(kept(scene(), many, seed)) == min(many, 60)


def test_choice_depends_on_seed_and_name_only() -> None:
    assert kept(scene(), 10) == kept(scene(), 10)
    assert kept(scene(), 10) != kept(scene(), 10, seed=1)
    assert kept(scene("kitchen"), 10) != kept(scene("attic"), 10)


def test_labelled_scenes_are_nested_and_stable() -> None:
    chosen = [budget_scenes(NAMES, LabelBudgetConfig(scenes=n)) for n in (1, 2, 4, 8, 12)]
    for few, many in pairwise(chosen):
        assert set(few) < set(many)
    assert [len(names) for names in chosen] == [1, 2, 4, 8, 12]
    assert chosen[-1] == NAMES == budget_scenes(NAMES, LabelBudgetConfig())
    assert budget_scenes(NAMES, LabelBudgetConfig(scenes=4, seed=1)) != chosen[2]


def test_scenes_can_be_named() -> None:
    assert budget_scenes(NAMES, LabelBudgetConfig(scenes=("room03", "room01"))) == ("room01", "room03")
    with pytest.raises(SceneError, match="atrium"):
        budget_scenes(NAMES, LabelBudgetConfig(scenes=("atrium",)))


def test_more_scenes_than_there_are_is_refused() -> None:
    with pytest.raises(SceneError, match="13 labelled scenes asked for, 12 there"):
        budget_scenes(NAMES, LabelBudgetConfig(scenes=13))


DATA = {"voxel": {"size": 0.05}, "cache_megabytes": 64}


@pytest.fixture
def store(tmp_path: Path) -> SceneStore:
    """Two training scenes with 20 and 200 classes and images of classes."""
    write_store(tmp_path / "store", n_scenes=2, n_points=1500, splits=("train", "val"))
    for path in (tmp_path / "store").glob("*/*/segment.npy"):
        np.save(path.with_name("segment200.npy"), np.load(path) * 7 + 3)
        np.save(path.with_name("instance.npy"), np.load(path))
    return open_folder(tmp_path / "store")


def folders(store: SceneStore) -> list[Path]:
    return [store.folder(name, "train") for name in store.names("train")]


def listed(store: SceneStore) -> dict[str, list[int]]:
    rng = np.random.default_rng(5)
    return {name: sorted(rng.choice(1400, 20, replace=False).tolist()) for name in store.names("train")}


def points_file(store: SceneStore, path: Path) -> Path:
    torch.save(listed(store), path)
    return path


def poison(store: SceneStore, keep: dict[str, list[int]]) -> None:
    """Every label that is not in the list becomes another class; images lose theirs."""
    for folder in folders(store):
        for name in ("segment", "segment200", "instance"):
            values = np.load(folder / f"{name}.npy")
            wrong = (values + 5) % 11
            wrong[keep.get(folder.name, [])] = values[keep.get(folder.name, [])]
            np.save(folder / f"{name}.npy", wrong.astype(values.dtype))
        if (folder / "frames/semantic").is_dir():
            shutil.rmtree(folder / "frames/semantic")


def same(first: Batch, second: Batch) -> None:
    for field in fields(first):
        one, other = getattr(first, field.name), getattr(second, field.name)
        if isinstance(one, torch.Tensor):
            assert torch.equal(one, other), field.name
        elif field.name == "pixels" and one is not None:
            assert torch.equal(one.label, other.label) and torch.equal(one.color, other.color)


@pytest.mark.parametrize("field", ["segment", "segment200"])
def test_poisoned_labels_outside_the_points_change_no_sample(store: SceneStore, tmp_path: Path, field: str):
    budget = {"points_file": points_file(store, tmp_path / "points20")}
    config = LabelledDataConfig.model_validate({**DATA, "budget": budget, "label_field": field})
    before = [LabelledDataset(store, "train", config).sample(i, 3) for i in range(2)]
    poison(store, listed(store))
    for index in range(2):
        same(before[index], LabelledDataset(store, "train", config).sample(index, 3))


@pytest.mark.parametrize("field", ["segment", "segment200"])
def test_listed_points_survive_dropout_voxels_and_crops(store: SceneStore, tmp_path: Path, field: str):
    augment = [{"kind": "dropout", "ratio": 0.9, "probability": 1.0}]
    settings = {"augment": augment, "sphere_crop": {"n_points": 40}, "label_field": field}
    budget = {"points_file": points_file(store, tmp_path / "points20")}
    config = LabelledDataConfig.model_validate({**DATA, **settings, "budget": budget, "shuffle": False})
    data = LabelledDataset(store, "train", config)
    points = listed(store)[data.names[0]]
    cloud = data.labelled_scene(0).cloud
    segment = cloud.labels[field][points]
    cells = torch.unique(torch.floor((cloud.coord[points] - cloud.coord.amin(0)) / 0.05), dim=0)
    for draw in range(3):
        batch = data.sample(0, draw)
        labels = batch.segment[batch.segment >= 0]
        n_voxels = len(torch.unique(batch.grid_coord[batch.segment >= 0], dim=0))
        assert n_voxels >= len(cells) - 3 and set(labels.tolist()) <= set(segment[segment >= 0].tolist())
        assert len(labels) >= int((segment >= 0).sum()) - 3


def test_pre_training_with_points_sees_no_picture_labels(store: SceneStore, tmp_path: Path):
    budget = {"points_file": points_file(store, tmp_path / "points20")}
    config = PretrainDataConfig.model_validate({**DATA, "budget": budget})
    before = [PretrainDataset(store, "train", config, with_labels=True).sample(i, 1) for i in range(2)]
    assert all(one.pixels is not None and bool((one.pixels.label == -1).all()) for one in before)
    assert any(bool((one.segment >= 0).any()) for one in before)
    poison(store, listed(store))
    for index in range(2):
        same(before[index], PretrainDataset(store, "train", config, with_labels=True).sample(index, 1))


def test_pre_training_with_scenes_sees_labels_of_these_only(store: SceneStore, tmp_path: Path):
    first, second = store.names("train")
    (tmp_path / "1.txt").write_bytes(f"\ufeff# one scene\r\n{second}\r\n".encode())
    config = PretrainDataConfig.model_validate({**DATA, "budget": {"scenes_file": tmp_path / "1.txt"}})
    before = [PretrainDataset(store, "train", config, with_labels=True).sample(i, 1) for i in range(2)]
    assert bool((before[0].segment == -1).all()) and bool((before[1].segment >= 0).any())
    assert before[0].pixels is not None and bool((before[0].pixels.label == -1).all())
    assert before[1].pixels is not None and bool((before[1].pixels.label >= 0).any())
    folder = store.folder(first, "train")
    shutil.rmtree(folder / "frames/semantic")
    for path in [*folder.glob("segment*.npy"), folder / "instance.npy"]:
        path.unlink()
    for index in range(2):
        same(before[index], PretrainDataset(store, "train", config, with_labels=True).sample(index, 1))


def test_fine_tuning_with_scenes_uses_these_only(store: SceneStore, tmp_path: Path):
    second = store.names("train")[1]
    (tmp_path / "1.txt").write_text(f"{second}\n")
    config = LabelledDataConfig.model_validate({**DATA, "budget": {"scenes_file": tmp_path / "1.txt"}})
    assert LabelledDataset(store, "train", config).names == (second,)
    (tmp_path / "1.txt").write_text(f"{second}\nscene0815_00\n")
    with pytest.raises(SceneError, match="scene0815_00"):
        LabelledDataset(store, "train", config)
    with pytest.raises(SceneError, match="cannot read"):
        budget_scenes((second,), LabelBudgetConfig(scenes_file=tmp_path / "2.txt"))


@pytest.mark.parametrize("kind", ["lists", "old torch", "arrays", "pickle", "tensors"])
def test_lists_of_points_are_read_however_they_were_saved(store: SceneStore, tmp_path: Path, kind: str):
    path, values = tmp_path / "points20", listed(store)
    if kind == "lists":
        torch.save(values, path)
    elif kind == "old torch":
        torch.save(values, path, _use_new_zipfile_serialization=False)
    elif kind == "arrays":
        torch.save({name: np.array(one) for name, one in values.items()}, path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({name: np.array(one) for name, one in values.items()}))
    else:
        torch.save({name: torch.tensor(one) for name, one in values.items()}, path)
    config = LabelledDataConfig.model_validate({**DATA, "budget": {"points_file": path}})
    data = LabelledDataset(store, "train", config)
    assert bool((data.sample(0, 0).segment >= 0).any())


def test_a_list_that_is_corrected_in_place_is_read_anew(store: SceneStore, tmp_path: Path):
    path, name = tmp_path / "points20", store.names("train")[0]
    scene, config = store.read(name, "train"), LabelBudgetConfig(points_file=path)
    known = torch.nonzero(scene.cloud.labels["segment"] >= 0)[:, 0].tolist()
    for points in (known[:2], known[1:3]):
        path.write_bytes(pickle.dumps({name: np.array(points)}))
        os.utime(path, (1, 1))
        labelled = apply_label_budget(scene, config, "segment").cloud.labels["labelled"]
        assert torch.nonzero(labelled)[:, 0].tolist() == points


class _Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_a_file_that_would_run_something_is_refused(store: SceneStore, tmp_path: Path, capsys):
    path = tmp_path / "points20"
    path.write_bytes(pickle.dumps({store.names("train")[0]: _Evil()}))
    config = LabelledDataConfig.model_validate({**DATA, "budget": {"points_file": path}})
    with pytest.raises(SceneError, match="points20"):
        LabelledDataset(store, "train", config).sample(0, 0)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"other": [1]}, "lists no points of scene"),
        ({"NAME": [1, 10**6]}, "names point 1000000"),
        ({"NAME": ["a"]}, "no list of point numbers"),
        ([1, 2], "points20"),
    ],
)
def test_lists_that_do_not_fit_are_named(store: SceneStore, tmp_path: Path, values, message: str):
    name = store.names("train")[0]
    if isinstance(values, dict):
        values = {name if key == "NAME" else key: one for key, one in values.items()}
    torch.save(values, tmp_path / "points20")
    config = LabelledDataConfig.model_validate({**DATA, "budget": {"points_file": tmp_path / "points20"}})
    with pytest.raises(SceneError, match=message):
        LabelledDataset(store, "train", config).sample(0, 0)


def test_a_number_and_a_list_exclude_each_other(tmp_path: Path):
    with pytest.raises(ValidationError, match="points_per_scene or points_file"):
        LabelBudgetConfig(points_per_scene=20, points_file=tmp_path / "points20")
    with pytest.raises(ValidationError, match="scenes or scenes_file"):
        LabelBudgetConfig(scenes=2, scenes_file=tmp_path / "1.txt")


DRIVES = tuple(f"scene-{drive:04d}/{frame:03d}" for drive in range(9) for frame in range(5))


def drive_of(name: str) -> str:
    return name.partition("/")[0]


def test_a_share_is_that_number_of_scenes_and_at_least_one() -> None:
    assert budget_scenes(DRIVES, LabelBudgetConfig(share=0.2)) == budget_scenes(
        DRIVES, LabelBudgetConfig(scenes=9)
    )
    assert len(budget_scenes(DRIVES, LabelBudgetConfig(share=0.001))) == 1
    with pytest.raises(ValidationError, match="share or scenes"):
        LabelBudgetConfig(share=0.5, scenes=3)


@pytest.mark.parametrize("seed", range(4))
def test_budgets_of_drives_take_whole_drives_and_few_scenes_of_each(seed: int) -> None:
    whole = budget_scenes(DRIVES, LabelBudgetConfig(drives=3, seed=seed))
    assert len({drive_of(name) for name in whole}) == 3 and len(whole) == 15
    one_each = budget_scenes(DRIVES, LabelBudgetConfig(drives=3, scenes_per_drive=1, seed=seed))
    assert set(one_each) <= set(whole) and len(one_each) == 3
    assert {drive_of(name) for name in one_each} == {drive_of(name) for name in whole}
    more = budget_scenes(DRIVES, LabelBudgetConfig(drives=5, scenes_per_drive=2, seed=seed))
    assert set(one_each) <= set(more) and len(more) == 10
    assert list(more) == sorted(more)
    every = budget_scenes(DRIVES, LabelBudgetConfig(scenes_per_drive=1, seed=seed))
    assert [drive_of(name) for name in every] == [f"scene-{drive:04d}" for drive in range(9)]


def test_more_drives_than_there_are_is_refused() -> None:
    with pytest.raises(SceneError, match="10 labelled drives asked for, 9 there"):
        budget_scenes(DRIVES, LabelBudgetConfig(drives=10))
