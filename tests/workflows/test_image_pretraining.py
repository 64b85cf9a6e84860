"""A 2D network pre-trained on rooms by the command: resumed, started from weights, exported to timm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ponderv2.data.pretrain_dataset import PretrainDataset
from ponderv2.data.scene_folder import open_folder
from ponderv2.errors import CheckpointError, PresetError
from ponderv2.io.timm_library import load_timm
from ponderv2.models.pretext import PretextModel
from ponderv2.tasks.checkpoints import load, load_model
from ponderv2.training.checkpoint import load_checkpoint
from ponderv2.workflows import export, pretrain, render
from ponderv2.workflows.config import PretrainConfig, RenderConfig
from tests.workflows.tiny import pretrain_config, rooms

NETWORK = "test_convnext"


def config(weights: Path | str = "random", **training: object) -> PretrainConfig:
    """Four images of 64 x 64 a scene; frozen stem and first stage, masks, depths supervised."""
    plain = pretrain_config(**training).model_dump(mode="json")
    depth = {"n_bins": 8, "nearest": 0.2, "width": 0.6, "loss_weight": 0.1}
    plain["model"] |= {
        "encoder": {
            "kind": "image_backbone",
            "network": NETWORK,
            "weights": str(weights),
            "frozen_stages": 1,
            "drop_path": 0.1,
            "used_stages": [2, 3],
            "n_maps": 2,
            "channels": 8,
        },
        "mask": {"block_size": 32, "ratio": 0.3},
        "lift": {"kind": "projected_sampling", "depth": depth},
    }
    plain["data"]["images"] = {
        "n_views": 2,
        "width": 64,
        "height": 64,
        "depth": True,
        "augment": {"flip": 0.5},
    }
    return PretrainConfig.model_validate(plain)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights of the network, as somebody else may have trained it."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(load_timm().create_model(NETWORK).state_dict(), path)
    return path


def test_blocks_of_images_cannot_be_removed_as_voxels_are() -> None:
    values = config().model_dump(mode="json")
    values["model"]["mask"]["hide"] = "remove"
    with pytest.raises(ValueError, match=r"mask\.hide is for points"):
        PretrainConfig.model_validate(values)


def test_a_run_starts_from_weights_resumes_exactly_and_leaves_a_network_for_timm(
    tmp_path: Path, weights: Path
) -> None:
    scenes = rooms(tmp_path / "rooms")
    result = pretrain.run(config(weights), scenes=scenes, out=tmp_path, name="whole")
    assert result.losses["lift_depth"] > 0 and {"psnr", "depth_l1"} <= set(result.metrics)

    pretrain.run(config(weights), scenes=scenes, out=tmp_path, name="parts")
    checkpoints = tmp_path / "parts" / "checkpoints"
    (checkpoints / "last.pth").unlink()
    (checkpoints / "best.pth").unlink()
    moved = weights.rename(weights.with_name("elsewhere.pth"))  # a checkpoint needs no file
    pretrain.run(config(weights), scenes=scenes, out=tmp_path, name="parts", resume=True)
    ends = [load_checkpoint(tmp_path / n / "checkpoints" / "last.pth").model for n in ("parts", "whole")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[1])
    load_model(tmp_path / "whole")

    found = export.run(tmp_path / "whole", tmp_path / "network.safetensors", "timm")
    state = load_file(tmp_path / "network.safetensors")
    assert found.entries == len(state) and NETWORK in found.notes[0]
    network = load_timm().create_model(NETWORK, num_classes=0)
    network.load_state_dict(state, strict=True)
    start = torch.load(moved, weights_only=True)
    assert torch.equal(state["stem.0.weight"], start["stem.0.weight"])  # frozen
    assert not torch.equal(
        state["stages.3.blocks.0.conv_dw.weight"], start["stages.3.blocks.0.conv_dw.weight"]
    )
    image = torch.rand(1, 3, 64, 64)
    own = load_model(tmp_path / "whole").backbone.network
    torch.testing.assert_close(network.eval()(image), own(image))
    moved.rename(weights)

    export.run(tmp_path / "whole", tmp_path / "network.pth", "timm")
    plain = torch.load(tmp_path / "network.pth", weights_only=True)
    assert all(torch.equal(plain[name], state[name]) for name in state)
    with pytest.raises(CheckpointError, match="nothing was published"):
        export.run(tmp_path / "whole", tmp_path / "network.pth", "official")


def test_weights_that_are_not_there_stop_a_new_run(tmp_path: Path) -> None:
    scenes = rooms(tmp_path / "rooms")
    with pytest.raises(PresetError, match="no file of weights"):
        pretrain.run(config(tmp_path / "none.pth"), scenes=scenes, out=tmp_path, name="run")


def test_an_encoder_of_points_has_no_network_for_timm(tmp_path: Path) -> None:
    scenes = rooms(tmp_path / "rooms")
    pretrain.run(pretrain_config(steps=1, evaluate_every=0), scenes=scenes, out=tmp_path, name="run")
    with pytest.raises(CheckpointError, match="has no 2D network"):
        export.run(tmp_path / "run", tmp_path / "network.pth", "timm")


def fusion() -> PretrainConfig:
    """Branches as `config` and `pretrain_config` have them."""
    images = config().model_dump(mode="json")
    alone = pretrain_config().model_dump(mode="json")
    images["model"] |= {
        "encoder": {
            "kind": "points_and_images",
            "points": alone["model"]["encoder"],
            "images": images["model"]["encoder"],
        },
        "lift": {"kind": "fused", "images": images["model"]["lift"]},
        "mask": None,
    }
    images["training"] |= {"steps": 1, "evaluate_every": 1}
    return PretrainConfig.model_validate(images)


def test_a_fusion_starts_from_branches_that_were_pre_trained_alone(tmp_path: Path) -> None:
    scenes = rooms(tmp_path / "rooms")
    short = {"steps": 1, "evaluate_every": 0}
    for name, one in (("points", pretrain_config(**short)), ("images", config(**short))):
        pretrain.run(one, scenes=scenes, out=tmp_path, name=name)
    zero = fusion().model_dump(mode="json")
    zero["training"]["steps"] = 0
    branches = (tmp_path / "points", tmp_path / "images")
    pretrain.run(
        PretrainConfig.model_validate(zero), scenes=scenes, start=branches, out=tmp_path, name="start"
    )
    state = load_model(tmp_path / "start").state_dict()
    alone = {name: load_model(tmp_path / name).state_dict() for name in ("points", "images")}
    for branch, weights in alone.items():
        for name, value in weights.items():
            if name.startswith("backbone."):
                assert torch.equal(state[f"backbone.{branch}.{name.removeprefix('backbone.')}"], value)
    assert torch.equal(state["lift.images.depth_head.weight"], alone["images"]["lift.depth_head.weight"])
    same = [name for name, value in alone["points"].items() if name.startswith("renderer.")]
    assert same and all(torch.equal(state[name], alone["points"][name]) for name in same)

    result = pretrain.run(fusion(), scenes=scenes, start=branches, out=tmp_path, name="fusion")
    assert result.losses["loss"] > 0 and {"psnr", "depth_l1"} <= set(result.metrics)
    found = export.run(tmp_path / "fusion", tmp_path / "network.pth", "timm")
    assert found.entries == sum(name.startswith("backbone.network.") for name in alone["images"])
    with pytest.raises(CheckpointError, match="a second encoder of the same kind"):
        pretrain.run(fusion(), scenes=scenes, start=branches[:1] * 2, out=tmp_path, name="twice")
    with pytest.raises(CheckpointError, match="takes points, that of the settings images"):
        pretrain.run(config(**short), scenes=scenes, start=branches[:1], out=tmp_path, name="other")


def seeing_all() -> PretrainConfig:
    """The encoder sees held-out images too."""
    plain = config(steps=1).model_dump(mode="json")
    plain["data"]["images"]["held_out"] = True
    return PretrainConfig.model_validate(plain)


@pytest.mark.parametrize(
    "settings", [config(steps=1), fusion(), seeing_all()], ids=["camera", "fusion", "held out too"]
)
def test_a_scene_is_rendered_by_the_images_that_validation_gives(
    settings: PretrainConfig, tmp_path: Path
) -> None:
    """The volume is that of validation, whose batches are made in another way."""
    scenes = rooms(tmp_path / "rooms")
    result = pretrain.run(settings, scenes=scenes, out=tmp_path, name="run")
    loaded, folder = load(result.checkpoint), open_folder(scenes)
    name = folder.names("val")[0]
    scene = folder.read(name, "val")
    assert any(frame.held_out for frame in scene.frames)
    field = loaded.scene_field(scene)
    batch = PretrainDataset(folder, "val", settings.data).validation(0).batch
    assert isinstance(loaded.model, PretextModel)
    with torch.no_grad():
        expected = loaded.model.build_volume(batch).volume
    torch.testing.assert_close(field.volume.values, expected.values)

    views = RenderConfig.model_validate({"width": 16, "images": ["color", "depth"]})
    rendered = render.run(views, result.checkpoint, scene=name, out=tmp_path / "frames", scenes=scenes)
    assert rendered.n_images == len(scene.frames) and rendered.metrics["held_out"]["psnr"] > 0
    with pytest.raises(CheckpointError, match="sees images, and scene"):
        loaded.scene_field(replace(scene, frames=()))
