"""Pre-training on drives by the workflows, with depth, colour and point labels, and what it renders."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from ponder_cli.presets import load_preset
from ponderv2.data.config import PretrainDataConfig
from ponderv2.data.pretrain_dataset import PretrainDataset
from ponderv2.data.scene_folder import open_folder
from ponderv2.data.sweeps import with_sweeps
from ponderv2.datasets.nuscenes.classes import CLASS_NAMES
from ponderv2.errors import PresetError, SceneError
from ponderv2.io.images import read_color
from ponderv2.models.pretext import PretextModel
from ponderv2.tasks.checkpoints import load
from ponderv2.tasks.feature_sources import EncoderFeatures, RawFeatures
from ponderv2.workflows import pretrain, protocols, render
from ponderv2.workflows.config import PretrainConfig, RenderConfig
from ponderv2.workflows.protocols import ComparisonRequest
from tests.datasets.drives.nuscenes_drives import SIZE, write_drives
from tests.workflows.tiny import ENCODER, TRAINING

LIMITS = {"lower": [-30.0, -30.0, -5.0], "upper": [30.0, 30.0, 5.0]}


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drives(tmp_path_factory.mktemp("nuscenes"), n_samples=3).root


@pytest.fixture(scope="module")
def run(drives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = PretrainConfig.model_validate(
        {
            "data": {
                "voxel": {"size": 0.5},
                "features": ["coord"],
                "fields": ["intensity", "time"],
                "sweeps": {"n_sweeps": 3, "choice": "random"},
                "centred": False,
                "range": LIMITS,
                "augment": [{"kind": "rotate", "axis": "z"}, {"kind": "shift"}, {"kind": "flip"}],
                "views": {"n_pixels": 24, "lidar": {"closest": 0.0}},
                "clusters": {"n_clusters": 3, "cell": 2.0, "sizes": [3], "reach": 2.0},
                "held_out_sensors": ["CAM_BACK"],
                "validation_views": 1,
                "cache_megabytes": 16,
            },
            "model": {
                "encoder": {**ENCODER, "in_channels": 5},
                "mask": {"block_size": 4, "ratio": 0.5},
                "frame": {"kind": "range", **LIMITS, "cells": [12, 12, 4]},
                "projection": {"kind": "conv3d", "out_channels": 8},
                "renderer": {
                    "field": {"sdf": {"hidden": 8}, "color": {"hidden": 8}, "geometry_channels": 4},
                    "sampler": {"kind": "neus", "initial": {"n_samples": 10}, "n_importance": 6},
                },
                "semantic": {"kind": "classes", "n_classes": len(CLASS_NAMES)},
                "losses": {"semantic_target": {"kind": "classes"}},
                "targets": {"clusters": {}},
            },
            "training": TRAINING,
        }
    )
    folder = tmp_path_factory.mktemp("runs")
    result = pretrain.run(config, scenes=drives, out=folder)
    assert math.isfinite(result.metrics["depth_l1"]) and result.losses["semantic"] > 0
    assert result.losses["clusters"] > 0
    return result.checkpoint


def test_a_camera_to_hold_out_that_no_scene_has_is_refused(run: Path, drives: Path, tmp_path: Path) -> None:
    values = load(run).config
    data = {**values["data"], "held_out_sensors": ["CAM_BACK", "CAM_TOP"]}
    parts = {name: values[name] for name in ("model", "training")}
    config = PretrainConfig.model_validate({**parts, "data": data})
    with pytest.raises(SceneError, match="no camera 'CAM_TOP' to hold out") as caught:
        pretrain.run(config, scenes=drives, out=tmp_path)
    assert caught.value.fix is not None and "CAM_BACK, CAM_FRONT" in caught.value.fix


def test_probes_see_the_sweeps_that_the_encoder_was_trained_with(run: Path, drives: Path) -> None:
    loaded, folder = load(run), open_folder(drives)
    scene = folder.read(folder.names("train")[2], "train")
    scene = scene.take(torch.arange(0, len(scene.cloud), 2))  # the sweeps fill other voxels
    found = EncoderFeatures("run", loaded, "nuScenes").features(scene)
    cloud = with_sweeps(scene, loaded.data.sweeps).cloud
    expected = loaded.features(cloud)[: len(scene.cloud)]
    assert len(cloud) > len(scene.cloud) == len(found.inverse)
    assert torch.equal(found.of_points(), expected)
    assert not torch.equal(expected, loaded.features(scene.cloud))
    request = ComparisonRequest(("knn", "linear", "purity"), baselines=True, device="cpu")
    result = protocols.run([run], request, scenes=drives, split="train")
    assert len(result.protocols) == 6 and len(result.purity) == 3
    assert result.purity[2]["features"] == "height, intensity"  # the time is only known of joined sweeps


def test_the_raw_input_is_height_and_intensity_of_the_voxels(run: Path, drives: Path) -> None:
    loaded, folder = load(run), open_folder(drives)
    scene = folder.read(folder.names("train")[2], "train")
    raw = RawFeatures.of(scene.cloud, loaded.data, torch.device("cpu"))
    found, cloud = raw.features(scene), scene.cloud
    places = {tuple(place): number for number, place in enumerate(cloud.coord.tolist())}
    index = torch.tensor([places[tuple(place)] for place in found.coord.tolist()])
    values = torch.stack([cloud.coord[:, 2], cloud.fields["intensity"]], dim=1)
    assert torch.equal(found.feature, values[index]) and 1 < len(index) < len(cloud)
    hidden = RawFeatures.of(scene.cloud, loaded.data, torch.device("cpu"), ("intensity",))
    assert hidden.name == "height"


def test_a_drive_is_rendered_by_the_points_that_validation_encodes(run: Path, drives: Path) -> None:
    """Those in the range of the run; features are those of all points, in the order of the cloud."""
    loaded, folder = load(run), open_folder(drives)
    name = folder.names("train")[2]
    scene = with_sweeps(folder.read(name, "train"), loaded.data.sweeps)
    outside = scene.cloud.coord.abs().amax(dim=1) >= 30.0
    assert 0 < outside.sum() < len(scene.cloud)
    data = PretrainDataConfig.model_validate(loaded.config["data"])
    batch = PretrainDataset(folder, "train", data).validation(2).batch
    assert batch.names == (name,) and isinstance(loaded.model, PretextModel)
    with torch.no_grad():
        expected = loaded.model.build_volume(batch).volume.values
    torch.testing.assert_close(loaded.scene_field(scene).volume.values, expected)
    encoded = loaded.encode(scene.cloud)
    assert encoded.field is not None and torch.equal(encoded.feature, loaded.features(scene.cloud))
    torch.testing.assert_close(encoded.field.volume.values, expected)
    with pytest.raises(SceneError, match="no point of scene 'cloud' lies in the range"):
        loaded.encode(scene.cloud.take(outside))


def test_a_drive_renders_beside_its_images_and_points(run: Path, drives: Path, tmp_path: Path) -> None:
    config = RenderConfig.model_validate({"side_by_side": True, "birds_eye": 2.0, "device": "cpu"})
    name = open_folder(drives).names("train")[2]
    short = name.rpartition("_")[0]
    result = render.run(config, run, scene=short, out=tmp_path / "frames", scenes=drives)
    assert result.n_images == 2 and len(result.views) == 2
    held_out = [str(row["frame"]) for row in result.views if row["held_out"]]
    assert len(held_out) == 1 and "CAM_BACK" in held_out[0]  # by the settings of the run
    assert set(result.metrics) == {"held_out", "seen"}
    beside = [read_color(path) for path in sorted((tmp_path / "frames" / "side_by_side").iterdir())]
    kinds = 6  # image, points; colour, depth, normal, class
    assert all(one.shape == (SIZE[1], kinds * SIZE[0], 3) for one in beside)
    assert read_color(tmp_path / "frames" / "birds_eye.png").shape == (30, 60, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.targets.normal={}", "targets[.]normal goes by depth images"),
        ("data.image_features={pool: 0.2}", "image_features[.]pool goes by depth images"),
    ],
)
def test_targets_that_need_depth_images_are_refused(change: str, message: str) -> None:
    """Of rooms, whose views have depth, neither is."""
    with pytest.raises(PresetError, match=message):
        load_preset("pretrain", "streets_demo", [change], PretrainConfig)
    load_preset("pretrain", "rooms", [change], PretrainConfig)


def test_a_factor_on_a_field_that_is_not_used_is_refused() -> None:
    with pytest.raises(PresetError, match="a factor for 'ring', which is none of"):
        load_preset("pretrain", "streets_demo", ["data.scales={ring: 0.1}"], PretrainConfig)
