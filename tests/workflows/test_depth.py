"""Depth of images by the commands: rooms with depth images, a LiDAR, probes, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from ponderv2.data.config import ImageInputConfig, LabelledDataConfig
from ponderv2.errors import PresetError, SceneError
from ponderv2.geometry.cameras import Camera
from ponderv2.io.timm_library import load_timm
from ponderv2.scenes.scene import Frame, PointCloud, Scene
from ponderv2.tasks.checkpoints import load_model
from ponderv2.tasks.depth import head_start
from ponderv2.tasks.depth.data import DepthDataset
from ponderv2.workflows import evaluate, finetune, pretrain
from ponderv2.workflows.config import FinetuneConfig, PretrainConfig
from tests.data.test_drive_inputs import Drive
from tests.scenes.closed_form_room import room_frames, write_store
from tests.workflows.heard import Heard
from tests.workflows.test_image_pretraining import NETWORK
from tests.workflows.test_image_pretraining import config as pretrain_settings
from tests.workflows.tiny import TRAINING, pretrain_config, rooms

ENCODER = {"kind": "image_backbone", "network": NETWORK, "used_stages": [1, 2, 3], "n_maps": 3, "channels": 8}


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quick fits."""
    monkeypatch.setattr(head_start, "MOST_ROWS", 2000)


def settings(encoder: dict[str, Any] | None = ENCODER, **training: Any) -> FinetuneConfig:
    return FinetuneConfig.model_validate(
        {
            "data": {
                "voxel": {"size": 0.2},
                "features": ["ones"],
                "augment": [],
                "sphere_crop": None,
                "mix_probability": 0.0,
                "images": {"n_views": 4, "width": 64, "height": 64, "augment": {"flip": 0.5}},
            },
            "model": {
                "kind": "depth",
                "encoder": encoder,
                "intervals": {"n_bins": 12, "nearest": 0.2, "width": 0.3},
            },
            "training": {**TRAINING, "batch_size": 1, "evaluate_every": 0, **training},
        }
    )


def test_rooms_whose_colour_is_their_position_are_learned_and_judged(tmp_path: Path) -> None:
    """Also by a probe of random features, as all rooms are of one shape; eval finds what training found."""
    scenes = rooms(tmp_path / "rooms")
    steps = {"steps": 30, "optimiser": {"kind": "adamw", "rate": 3.0e-3}}
    tuned = finetune.run(settings(**steps), scenes=scenes, out=tmp_path, name="full")
    probe = finetune.run(
        settings().model_copy(update={"protocol": "linear"}), scenes=scenes, out=tmp_path, name="probe"
    )
    assert tuned.metrics["abs_rel"] < 0.15 and tuned.metrics["delta1"] > 0.8
    assert probe.metrics["abs_rel"] < 0.1 and probe.steps == 0
    found = evaluate.run(tmp_path / "full", scenes=scenes)
    assert found.metrics["rmse"] == pytest.approx(tuned.metrics["rmse"], rel=1e-5)
    assert len(found.views) == 2 * 4 and all(path.is_file() for path in found.images)
    with pytest.raises(SceneError, match="submission"):
        evaluate.run(tmp_path / "full", scenes=scenes, submission=tmp_path / "s.zip")


def test_a_pre_trained_encoder_of_images_is_probed(tmp_path: Path) -> None:
    """Its network and how its images are prepared come from the checkpoint."""
    scenes = rooms(tmp_path / "rooms")
    before = pretrain_settings(steps=1, evaluate_every=0).model_dump(mode="json")
    before["data"]["images"]["held_out"] = True
    run = pretrain.run(PretrainConfig.model_validate(before), scenes=scenes, out=tmp_path, name="pre")
    plain = settings(None).model_dump(mode="json", exclude_unset=True)
    del plain["data"]["images"]
    start = FinetuneConfig.model_validate(plain | {"protocol": "linear"})
    mixed = start.model_copy(update={"data": start.data.model_copy(update={"mix_probability": 0.8})})
    with pytest.raises(PresetError, match="cannot be merged"):
        finetune.run(mixed, checkpoint=run.folder, scenes=scenes, out=tmp_path, name="mixed")
    heard = Heard()
    finetune.run(start, checkpoint=run.folder, scenes=scenes, out=tmp_path, name="probe", report=heard)
    assert not any("was trained on" in line for line in heard.warned), "on points, which it does not read"
    first, last = (
        load_model(run.checkpoint).backbone.network,
        load_model(tmp_path / "probe").backbone.network,
    )
    assert all(torch.equal(value, last.state_dict()[name]) for name, value in first.state_dict().items())
    assert evaluate.run(tmp_path / "probe", scenes=scenes).metrics["abs_rel"] > 0


def test_without_a_checkpoint_the_network_starts_from_the_weights_of_the_settings(tmp_path: Path) -> None:
    scenes = rooms(tmp_path / "rooms")
    torch.manual_seed(5)
    weights = load_timm().create_model(NETWORK)
    torch.save(weights.state_dict(), tmp_path / "weights.pth")
    start = settings({**ENCODER, "weights": str(tmp_path / "weights.pth")})
    finetune.run(start.model_copy(update={"protocol": "linear"}), scenes=scenes, out=tmp_path, name="run")
    own = load_model(tmp_path / "run").backbone.network.state_dict()
    assert torch.equal(own["stem.0.weight"], weights.state_dict()["stem.0.weight"])


def scan(**fields: torch.Tensor) -> Scene:
    """Points 4, 6, 8 and 2 metres in front of the LiDAR, whose camera looks along x; two in one pixel."""
    coord = torch.tensor([[4.0, 0.4, 0.0], [6.0, -1.2, 0.3], [8.0, 0.8, 0.0], [2.0, 0.0, 0.5]])
    to_camera = torch.eye(4)
    to_camera[:3, :3] = torch.tensor([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
    intrinsics = torch.tensor([[32.0, 0.0, 31.5], [0.0, 32.0, 31.5], [0.0, 0.0, 1.0]])
    camera = Camera(intrinsics, to_camera, 64, 64)

    class Grey(Frame):
        has_color = True

        def read_color(self) -> torch.Tensor:
            return torch.full((64, 64, 3), 128, dtype=torch.uint8)

    return Scene("scan", PointCloud(coord, fields=fields), (Grey("front", camera),))


def test_pixels_get_the_depth_of_the_nearest_point_of_a_lidar() -> None:
    config = LabelledDataConfig(
        features=("ones",), centred=False, augment=(), sphere_crop=None, mix_probability=0.0,
        images=ImageInputConfig(n_views=1, width=32, height=32),
    )  # fmt: skip
    data = DepthDataset(Drive(scan(intensity=torch.ones(4))), "train", config)
    images = data.images_of(0).images
    assert images is not None and images.depth is not None
    place = {
        (int(row), int(column)): float(images.depth[0, row, column])
        for row, column in images.depth[0].nonzero()
    }
    # Half the size: 16 (x, y) / z + 15.5; the nearest point shows the vehicle.
    expected = {(16, 14): 4.0, (15, 19): 6.0}
    assert place == pytest.approx(expected)
    with pytest.raises(SceneError, match="has a measured depth"):  # points of a surface measure no pixels
        DepthDataset(Drive(scan()), "train", config).check()


def test_what_cannot_be_measured_or_read_is_refused(tmp_path: Path) -> None:
    scenes = rooms(tmp_path / "rooms")
    frames = [replace(one, depth=None) for one in room_frames()]
    write_store(tmp_path / "flat", n_scenes=1, frames=frames, splits=("train",))
    with pytest.raises(SceneError, match="no pixel of the images of scene 'room0' has a measured depth"):
        finetune.run(settings(), scenes=tmp_path / "flat", out=tmp_path, name="flat")
    points = pretrain.run(
        pretrain_config(steps=1, evaluate_every=0), scenes=scenes, out=tmp_path, name="points"
    )
    with pytest.raises(PresetError, match="gives those of points"):
        finetune.run(settings(None), checkpoint=points.folder, scenes=scenes, out=tmp_path, name="run")
    with pytest.raises(ValidationError, match=r"data\.images is null"):
        plain = settings().model_dump(mode="json")
        plain["data"]["images"] = None
        FinetuneConfig.model_validate(plain)
    far = settings().model_copy(deep=True)
    far = FinetuneConfig.model_validate(
        far.model_dump(mode="json") | {"protocol": "linear"}
        | {"model": {**far.model_dump(mode="json")["model"], "intervals": {"nearest": 500.0}}}
    )  # fmt: skip
    with pytest.raises(SceneError, match="within the intervals"):
        finetune.run(far, scenes=scenes, out=tmp_path, name="far")


@pytest.mark.parametrize(
    ("part", "values", "word"),
    [
        ("model", {"freeze_encoder": True, "train_decoder": True}, "train_decoder"),
        ("data", {"budget": {"points_per_scene": 20}}, "points_per_scene"),
        ("data", {"class_balance": True}, "class_balance"),
    ],
)
def test_settings_without_an_effect_on_depth_are_refused(
    part: str, values: dict[str, Any], word: str, tmp_path: Path
) -> None:
    plain = settings().model_dump(mode="json")
    plain[part] |= values
    write_store(tmp_path / "rooms", n_scenes=1, splits=("train",))
    with pytest.raises(PresetError, match=word):
        finetune.run(
            FinetuneConfig.model_validate(plain), scenes=tmp_path / "rooms", out=tmp_path, name="run"
        )


def test_images_that_are_held_out_are_for_pre_training() -> None:
    plain = settings().model_dump(mode="json")
    plain["data"]["images"]["held_out"] = True
    with pytest.raises(ValidationError, match=r"images\.held_out is for pre-training"):
        FinetuneConfig.model_validate(plain)


def test_supervised_depths_of_a_lift_need_measured_ones() -> None:
    plain = pretrain_settings().model_dump(mode="json")
    plain["data"]["images"]["depth"] = False
    with pytest.raises(ValidationError, match=r"set data\.images\.depth to true"):
        PretrainConfig.model_validate(plain)
    plain["model"]["lift"]["depth"]["loss_weight"] = 0.0
    PretrainConfig.model_validate(plain)
