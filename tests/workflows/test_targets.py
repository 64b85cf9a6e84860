"""Pre-training with further targets, through the workflow."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ponderv2.collectives import process_rank
from ponderv2.errors import Interrupted, PresetError, SceneError
from ponderv2.scenes.batch import Batch
from ponderv2.tasks.rendering.task import RenderingTask
from ponderv2.training.checkpoint import load_checkpoint
from ponderv2.training.distributed import Member, free_port, make_fabric
from ponderv2.training.job import Job
from ponderv2.training.report import SilentReporter
from ponderv2.workflows import pretrain
from ponderv2.workflows.config import PretrainConfig
from ponderv2.workflows.image_features import with_features
from ponderv2.workflows.training_runs import RunRequest, _train_as_member
from tests.training.processes import run_ranks
from tests.workflows.heard import Heard
from tests.workflows.test_label_free import label_files
from tests.workflows.test_several_processes import CLOCKS
from tests.workflows.test_several_processes import _together as together
from tests.workflows.tiny import pretrain_config, rooms


def config_with(targets: dict[str, Any], **training: Any) -> PretrainConfig:
    values = pretrain_config(**training).model_dump()
    values["model"]["targets"] = targets
    return PretrainConfig.model_validate(values)


def test_normals_of_depth_are_a_loss_of_their_own(tmp_path: Path) -> None:
    scenes = rooms(tmp_path / "rooms")
    config = config_with({"normal": {"weight": 0.5}}, steps=2, evaluate_every=0)
    result = pretrain.run(config, scenes=scenes, out=tmp_path / "runs")
    assert 0 < result.losses["normal"] < 0.5 * (3 + 2)
    assert "clusters" not in result.losses
    plain = pretrain.run(pretrain_config(steps=2, evaluate_every=0), scenes=scenes, out=tmp_path / "plain")
    assert "normal" not in plain.losses and plain.losses["loss"] != result.losses["loss"]


def test_image_features_need_their_settings(tmp_path: Path) -> None:
    scenes = rooms(tmp_path / "rooms")
    with pytest.raises(PresetError, match=r"data\.image_features"):
        pretrain.run(config_with({"image_features": {}}), scenes=scenes, out=tmp_path / "runs")


CLUSTERS = {"n_clusters": 6, "cell": 0.5, "sizes": [3, 5], "sample_cells": 400}


def with_clusters(**training: Any) -> PretrainConfig:
    values = config_with({"clusters": {}, "normal": {}}, **training).model_dump()
    values["data"]["clusters"] = CLUSTERS
    return PretrainConfig.model_validate(values)


def with_all_targets(**training: Any) -> PretrainConfig:
    """Clusters, normals and image features."""
    values = with_clusters(**training).model_dump()
    values["data"]["image_features"] = {"n_channels": 4, "longest_side": 32, "sample_images": 4}
    values["model"]["targets"] |= {"image_features": {}}
    return PretrainConfig.model_validate(values)


def lines(folder: Path) -> list[dict[str, Any]]:
    """Of the steps, without clocks."""
    every = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in one.items() if k not in CLOCKS} for one in every if "loss" in one]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "checkpoints" / "last.pth").model


def test_a_resumed_run_has_the_clusters_and_losses_of_one_that_was_not_interrupted(tmp_path: Path) -> None:
    scenes, heard, again = rooms(tmp_path / "rooms"), Heard(), Heard()
    config = with_clusters(evaluate_every=0)
    whole = pretrain.run(config, scenes=scenes, out=tmp_path, name="whole", report=heard)
    assert whole.losses["clusters"] > 0 and whole.losses["normal"] > 0
    assert sum("6 clusters of the surroundings" in note for note in heard.noted) == 1
    part = tmp_path / "part"
    shutil.copytree(tmp_path / "whole", part)
    (part / "checkpoints" / "last.pth").write_bytes(b"damaged")
    stored = (part / "clusters.safetensors").read_bytes()
    resumed = pretrain.run(config, scenes=scenes, out=tmp_path, name="part", resume=True, report=again)
    assert (part / "clusters.safetensors").read_bytes() == stored
    assert not any("clusters of" in note for note in again.noted)
    assert resumed.losses == whole.losses and lines(part) == lines(tmp_path / "whole")
    found, expected = weights(part), weights(tmp_path / "whole")
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert found["target_heads.clusters.weight"].shape == (6, 8)


class _StoppedOnce:
    """Makes the job of a run; the first time with scenes that ask for the end when they have been read often.

    Rank 0 alone gets the signal.
    """

    def __init__(self, asked: int) -> None:
        self.asked = asked

    def __call__(self, request: RunRequest, resumed: bool) -> Job:
        job = pretrain.make_job(request, resumed)
        (source,) = job.scenes.sources
        sample = source.sample

        def asking(index: int, draw: int) -> Batch:
            self.asked -= 1
            if self.asked == 0 and process_rank() == 0:
                os.kill(os.getpid(), signal.SIGINT)
            return sample(index, draw)

        object.__setattr__(source, "sample", asking)
        return job


def _interrupted_and_resumed(rank: int, ports: tuple[int, ...], request: RunRequest, asked: int) -> list[str]:
    """What a run ends with, and after that the same run resumed."""
    torch.set_num_threads(1)
    make_job, ends = _StoppedOnce(asked), []
    for number, port in enumerate(ports):
        try:
            member = Member(rank, request.devices, port)
            outcome = _train_as_member(member, replace(request, resume=number > 0), make_job, None)
            ends.append(f"step {outcome.step}")
        except Interrupted as stop:
            ends.append(stop.message)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return ends


@pytest.mark.parametrize("n", [1, 2])
def test_interrupted_and_resumed_it_ends_with_the_weights_of_one_that_was_not(tmp_path: Path, n: int) -> None:
    """Image features, clusters and normals, to the last bit."""
    config = with_all_targets(evaluate_every=0, save_every=100, timeout=30.0)
    config = completed(config.model_copy(update={"scenes": rooms(tmp_path / "rooms")}))
    make_fabric(config.training, Member(), 1, 1)  # imports what the processes would import each
    ends = {}
    for name, asked in (("whole", 0), ("parts", 6 // n)):
        ports = tuple(free_port() for _ in range(2 if asked else 1))
        request = RunRequest(config, tmp_path / name, devices=n)
        found = run_ranks(_interrupted_and_resumed, n, ports, request, asked)
        assert all(one == found[0] for one in found)
        ends[name] = found[0]
    assert ends["whole"] == ["step 4"]
    assert ends["parts"][0].startswith("stopped after step ") and ends["parts"][1] == "step 4"
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")
    found, expected = weights(tmp_path / "parts"), weights(tmp_path / "whole")
    assert {"target_heads.clusters.weight", "target_heads.image_features.weight"} <= set(expected)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_without_labels_targets_and_losses_are_the_same_to_the_last_bit(tmp_path: Path) -> None:
    scenes, config = rooms(tmp_path / "rooms"), with_all_targets(steps=2, evaluate_every=0)
    pretrain.run(config, scenes=scenes, out=tmp_path, name="before")
    for path in label_files(scenes):
        path.unlink()
    pretrain.run(config, scenes=scenes, out=tmp_path, name="after")
    assert lines(tmp_path / "after") == lines(tmp_path / "before")
    found, expected = weights(tmp_path / "after"), weights(tmp_path / "before")
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("n", [2, 3])
def test_several_processes_have_the_losses_of_one(tmp_path: Path, n: int) -> None:
    """The first one finds the clusters, the others wait for them."""
    scenes = rooms(tmp_path / "rooms")
    # Of plain gradient descent: Adam divides by gradients, also by those that are rounding errors.
    sgd = {"kind": "sgd", "rate": 1.0e-3}
    config = with_all_targets(steps=2, evaluate_every=0, batch_size=n, timeout=30.0, optimiser=sgd)
    config = config.model_copy(update={"scenes": scenes})
    pretrain.run(config, out=tmp_path, name="one")
    together(n, completed(config), tmp_path / "several", pretrain.make_job)
    one, several = lines(tmp_path / "one"), lines(tmp_path / "several")
    assert len(several) == 2 and all(
        several[0][name] > 0 for name in ("image_features", "clusters", "normal")
    )
    for expected, found in zip(one, several, strict=True):
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=2e-5, abs=1e-6), name


def completed(config: PretrainConfig) -> PretrainConfig:
    """The settings as `pretrain.run` completes them."""
    config = with_features(config, SilentReporter())
    return config.model_copy(update={"model": RenderingTask(config.model).with_data(config.data)})


def test_clouds_without_colours_have_clusters_of_their_shape(tmp_path: Path) -> None:
    scenes, heard = rooms(tmp_path / "rooms"), Heard()
    for path in (*scenes.glob("*/*/color.npy"), *scenes.glob("*/*/normal.npy")):
        path.unlink()
    values = with_clusters(steps=2, evaluate_every=0).model_dump()
    values["data"]["features"] = ["offset", "coord"]
    config = PretrainConfig.model_validate(values)
    result = pretrain.run(config, scenes=scenes, out=tmp_path, name="run", report=heard)
    assert result.losses["clusters"] > 0
    assert any("; colours are left out" in note for note in heard.noted)


def test_data_sets_of_one_run_share_their_clusters(tmp_path: Path) -> None:
    for name in ("first", "second"):
        rooms(tmp_path / name)
    values = with_clusters(steps=4, evaluate_every=0).model_dump()
    values["datasets"] = [{"scenes": "first"}, {"scenes": "second"}]
    config, heard = PretrainConfig.model_validate(values), Heard()
    result = pretrain.run(config, scenes=tmp_path, out=tmp_path, name="joint", report=heard)
    assert result.losses["clusters"] > 0
    assert any("cells in 4 scenes" in note for note in heard.noted)


def test_clusters_that_no_settings_choose_are_said_to_be_the_usual_ones(tmp_path: Path) -> None:
    heard = Heard()
    config = config_with({"clusters": {}}, steps=0, evaluate_every=0)
    pretrain.run(config, scenes=rooms(tmp_path / "rooms"), out=tmp_path, name="run", report=heard)
    (note,) = [text for text in heard.noted if "clusters of the surroundings" in text]
    assert note.endswith("data.clusters is null: the usual ones, of cells of 0.15 m")


def test_more_clusters_than_cells_are_refused(tmp_path: Path) -> None:
    values = with_clusters().model_dump()
    values["data"]["clusters"] = {**CLUSTERS, "n_clusters": 4000}
    config = PretrainConfig.model_validate(values)
    with pytest.raises(SceneError, match="too few for 4000 clusters"):
        pretrain.run(config, scenes=rooms(tmp_path / "rooms"), out=tmp_path, name="run")
    assert not (tmp_path / "run" / "clusters.safetensors").exists()
