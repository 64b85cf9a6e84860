"""A model works wholly on the device that was asked for, and gives there what it gives on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import ponderv2
from ponder_cli.app import app
from ponderv2.errors import ResourceError
from ponderv2.reconstruction.scene_field import ModelField
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.scenes.scene import Scene
from ponderv2.store.store import SceneStore
from ponderv2.tasks.checkpoints import open_checkpoint
from ponderv2.workflows import evaluate, scene_fields
from ponderv2.workflows import features as features_workflow
from ponderv2.workflows.scene_fields import open_field
from tests.second_device import OnDevice, second_device
from tests.tasks.test_loaded_model import camera, checkpoint, cloud  # noqa: F401 - fixtures


def test_the_second_device_refuses_to_meet_the_cpu(monkeypatch):
    """As a GPU does: otherwise the tests below would prove nothing."""
    with second_device(monkeypatch) as device:
        there = torch.arange(3.0).to(device)
        assert (there + 1).cpu().tolist() == [1.0, 2.0, 3.0]
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.ones(3)


def test_features_are_computed_there_and_equal_those_of_the_cpu(monkeypatch, checkpoint, cloud):  # noqa: F811
    expected = ponderv2.load(checkpoint).features(cloud)
    with second_device(monkeypatch) as device:
        loaded = ponderv2.load(checkpoint, device=device)
        assert loaded.device.type == device
        assert all(isinstance(value.data, OnDevice) for value in loaded.model.parameters())
        found = loaded.features(cloud)
        assert type(found) is torch.Tensor
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_cloud_is_encoded_and_rendered_there(monkeypatch, checkpoint, cloud, camera):  # noqa: F811
    on_cpu = ponderv2.load(checkpoint).encode(cloud)
    points, down = cloud.coord[:50], torch.tensor([0.0, 0.0, -1.0]).expand(50, 3)
    expected = on_cpu.render(camera)
    assert on_cpu.field is not None
    with torch.no_grad():
        distance, color = on_cpu.field.signed_distance(points), on_cpu.field.color(points, down)
    with second_device(monkeypatch) as device:
        encoded = ponderv2.load(checkpoint, device=device).encode(cloud)
        assert encoded.field is not None and isinstance(encoded.field.volume.values, OnDevice)
        view = encoded.render(camera)
        found = encoded.field.signed_distance(points), encoded.field.color(points, down)
    assert type(encoded.feature) is torch.Tensor and type(view.color) is torch.Tensor
    torch.testing.assert_close(encoded.feature, on_cpu.feature, atol=1e-5, rtol=1e-5)
    for name in ("color", "depth", "normal", "opacity"):
        torch.testing.assert_close(getattr(view, name), getattr(expected, name), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found, (distance, color), atol=1e-4, rtol=1e-4)


def test_a_scene_is_encoded_on_the_device_that_renders_it(monkeypatch, checkpoint, cloud):  # noqa: F811
    with second_device(monkeypatch) as device:
        field = open_field(open_checkpoint(checkpoint), Scene("bumps", cloud), device)
        assert isinstance(field, ModelField)
        assert isinstance(field.volume.values, OnDevice) and isinstance(field.volume.lower, OnDevice)
        assert all(isinstance(value.data, OnDevice) for value in field.renderer.parameters())


def test_the_features_command_works_there(monkeypatch, tmp_path, checkpoint, cloud):  # noqa: F811
    np.save(tmp_path / "cloud.npy", torch.cat([cloud.coord, cloud.color, cloud.normal], dim=1).numpy())
    for name, device in (("cpu", "cpu"), ("there", None)):
        with second_device(monkeypatch) as other:
            out = tmp_path / f"{name}.npy"
            features_workflow.run(checkpoint, out=out, file=tmp_path / "cloud.npy", device=device or other)
    found = [np.load(tmp_path / f"{name}.npy") for name in ("cpu", "there")]
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


@pytest.mark.parametrize("command", ["features", "eval", "render", "reconstruct"])
def test_every_command_passes_its_device_on(monkeypatch, checkpoint, command: str):  # noqa: F811
    """And says what to type where that device is missing."""
    words = {"features": ["--cloud", "x.ply", "--out", "f.npy"], "eval": []}
    words["render"] = ["--scene", "a", "--cameras", "orbit", "--out", str(checkpoint.parent / "frames")]
    more = words.get(command, ["--scene", "a"])
    asked = []

    def refuse(name: str) -> torch.device:
        asked.append(name)
        raise ResourceError(f"no {name} here", fix="--device cpu")

    for module in (evaluate, features_workflow, scene_fields):
        monkeypatch.setattr(module, "chosen_device", refuse)
    store = make_store(checkpoint.parent / "data", torch.rand(50, 3))
    data = [] if command == "features" else ["--data", str(store)]
    ran = CliRunner().invoke(app, [command, str(checkpoint), *more, *data, "--device", "cuda"])
    assert ran.exit_code == 2 and "--device cpu" in ran.output and asked == ["cuda"], ran.output


def make_store(root: Path, coord: torch.Tensor) -> Path:
    """One scene without frames."""
    SceneStore.create(root, DatasetInfo("rooms", splits=("val",)))
    (root / "val" / "a").mkdir(parents=True)
    for field, values in (("coord", coord), ("color", coord * 255), ("normal", torch.ones_like(coord))):
        np.save(root / "val" / "a" / f"{field}.npy", values.numpy())
    return root


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device that must be missing")
def test_a_device_that_is_not_there_is_named(checkpoint: Path):  # noqa: F811
    with pytest.raises(ResourceError, match="no GPU"):
        ponderv2.load(checkpoint, device="cuda")
    with pytest.raises(ResourceError, match="no device called 'gpu'"):
        ponderv2.load(checkpoint, device="gpu")
