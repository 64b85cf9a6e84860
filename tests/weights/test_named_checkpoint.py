"""The name of an encoder that ships, wherever a checkpoint is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import ponderv2
from ponder_cli.app import app
from ponderv2 import weights
from ponderv2.errors import CheckpointError, PonderError
from ponderv2.models.config import PretextConfig
from ponderv2.models.pretext import PretextModel
from ponderv2.tasks.checkpoints import open_checkpoint
from ponderv2.training.checkpoint import Checkpoint, save_checkpoint
from ponderv2.training.open_checkpoint import Origin
from ponderv2.workflows import export

MODEL = {
    "encoder": {"kind": "sparse_unet", "base_channels": 8, "channels": [8, 8], "layers": [1, 1]},
    "projection": {"kind": "conv3d", "out_channels": 8},
    "renderer": {
        "field": {"sdf": {"hidden": 8}, "color": {"hidden": 8, "n_blocks": 0}, "share_volume": True}
    },
}
DATA = {"voxel": {"size": 0.1}, "features": ["color", "normal"], "augment": [{"kind": "color_drop"}]}


def save(path: Path, seed: int = 0, **settings: object) -> Path:
    """A small pre-trained model with random weights and statistics."""
    torch.manual_seed(seed)
    config = PretextConfig.model_validate(MODEL)
    model = PretextModel(config)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 70000.0)  # beyond what 16 bits hold
    whole = {"model": config.model_dump(mode="json"), "data": DATA, **settings}
    save_checkpoint(path, Checkpoint("pretext", whole, model.state_dict()))
    return path


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An encoder in place of the one that ships, in a working folder without any other files."""
    folder, here = tmp_path / "package", tmp_path / "here"
    folder.mkdir()
    here.mkdir()
    monkeypatch.setattr(weights, "FOLDER", folder)
    monkeypatch.chdir(here)
    export.run(save(tmp_path / "run.pth"), folder / "rooms.safetensors", encoder_only=True)
    return folder / "rooms.safetensors"


@pytest.fixture
def cloud(rng: torch.Generator) -> ponderv2.PointCloud:
    """A bumpy floor of 3 m x 2 m."""
    coord = torch.rand(600, 3, generator=rng) * torch.tensor([3.0, 2.0, 0.3])
    up = torch.tensor([0.0, 0.0, 1.0]).expand(600, 3).contiguous()
    return ponderv2.PointCloud(coord, torch.rand(600, 3, generator=rng) * 255, up)


def test_without_a_path_the_encoder_that_ships_is_loaded(shipped, cloud):
    expected = ponderv2.load(shipped).features(cloud)
    assert expected.shape == (600, 8)
    assert torch.equal(ponderv2.load().features(cloud), expected)
    assert torch.equal(ponderv2.load("rooms").features(cloud), expected)


def test_a_folder_of_the_same_name_is_said_and_taken_when_it_is_given_as_a_path(shipped, cloud):
    (Path("rooms") / "checkpoints").mkdir(parents=True)
    save(Path("rooms") / "checkpoints" / "best.pth", seed=1)
    with pytest.warns(UserWarning, match=r"'rooms' is the encoder that ships with ponder; \./rooms is"):
        assert ponderv2.load("rooms").path == shipped
    own = Path("rooms") / "checkpoints" / "best.pth"
    assert ponderv2.load("./rooms").path == ponderv2.load(Path("rooms")).path == own
    named, path = (CliRunner().invoke(app, ["inspect", name, "--json", "-"]) for name in ("rooms", "./rooms"))
    assert "is the encoder that ships" in named.stderr and str(shipped) in named.stdout
    assert "is the encoder that ships" not in path.stderr and str(own) in path.stdout


def test_features_without_a_checkpoint_say_so_and_equal_those_of_load(shipped, cloud):
    np.save("cloud.npy", np.concatenate([cloud.coord, cloud.color, cloud.normal], axis=1))
    ran = CliRunner().invoke(app, ["features", "--cloud", "cloud.npy", "--out", "f.npy"])
    assert ran.exit_code == 0, ran.output
    assert "no checkpoint named: 'rooms'" in ran.stderr
    expected = ponderv2.load().features(ponderv2.read_cloud(Path("cloud.npy")))
    torch.testing.assert_close(torch.from_numpy(np.load("f.npy")), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("words", [["finetune", "--from", "rooms"], ["eval", "rooms"], ["render", "rooms"]])
def test_commands_that_need_more_than_an_encoder_get_as_far_as_their_own_message(shipped, words):
    ran = CliRunner().invoke(app, [*words, *(["--scene", "a"] if words[0] == "render" else [])])
    assert ran.exit_code != 0 and "no checkpoint at" not in str(ran.exception)


def test_pretraining_starts_from_it_too(shipped, monkeypatch):
    from ponderv2.workflows import pretrain

    starts = []

    def run(_config: object, **options: object) -> None:
        starts.append(options["start"])
        raise PonderError("enough")

    monkeypatch.setattr(pretrain, "run", run)
    CliRunner().invoke(app, ["pretrain", "--from", "rooms", "--from", "runs/mine"])
    assert [list(start) for start in starts] == [[weights.weights_file("rooms"), Path("runs/mine")]]


@pytest.mark.parametrize(
    ("words", "preset"),
    [
        (["--from", "rooms"], "rooms"),
        (["--from", "./rooms"], "demo"),
        (["--scratch"], "demo"),
        (["--from", "rooms", "--preset", "demo"], "demo"),
    ],
)
def test_fine_tuning_from_it_has_the_preset_of_its_encoder(shipped, monkeypatch, words, preset):
    import ponder_cli.presets

    asked = []

    def load_preset(command: str, name: str, *arguments: object) -> None:
        asked.append((command, name))
        raise PonderError("enough")

    monkeypatch.setattr(ponder_cli.presets, "load_preset", load_preset)
    CliRunner().invoke(app, ["finetune", *words])
    assert asked == [("finetune", preset)]


@pytest.mark.parametrize(
    "words", [["finetune", "--from", "roms"], ["eval", "roms"], ["features", "roms", "-o", "f.npy"]]
)
def test_a_misspelt_name_suggests_the_encoder_that_ships(shipped, words):
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code == 2
    assert "no checkpoint at roms" in ran.stderr and "try: rooms, the encoder that ships" in ran.stderr


def test_a_misspelt_run_suggests_the_one_beside_it(shipped, tmp_path):
    (tmp_path / "runs" / "pretrain-demo" / "checkpoints").mkdir(parents=True)
    save(tmp_path / "runs" / "pretrain-demo" / "checkpoints" / "last.pth")
    (tmp_path / "runs" / "finetune-demo").mkdir()
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path / "runs" / "pretrain-dmeo")
    assert caught.value.fix == str(tmp_path / "runs" / "pretrain-demo")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path / "runs" / "finetune-dem")  # a folder without a checkpoint
    assert caught.value.fix == "give the folder of a run, or a .pth file in its checkpoints/"


def test_a_name_that_does_not_ship_is_a_path(shipped):
    with pytest.raises(CheckpointError, match="no checkpoint at kitchens"):
        ponderv2.load("kitchens")
    with pytest.raises(ValueError, match="expected one of rooms"):
        weights.weights_file("kitchens")


def test_the_names_are_known_without_torch():
    code = "import sys, ponderv2.weights as w; w.named_checkpoint(None); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_encoder_alone_names_no_folder_of_its_training(tmp_path):
    path = save(tmp_path / "run.pth", scenes="/home/somebody/scenes", training={"steps": 3})
    export.run(path, tmp_path / "e.safetensors", encoder_only=True)
    opened = open_checkpoint(tmp_path / "e.safetensors")
    assert opened.scenes is None and set(opened.config) == {"data", "model"}
    assert opened.config["data"] == DATA and b"somebody" not in (tmp_path / "e.safetensors").read_bytes()


def test_16_bits_keep_the_statistics_and_round_the_parameters(tmp_path, cloud):
    path = save(tmp_path / "run.pth")
    whole = export.run(path, tmp_path / "whole.safetensors", encoder_only=True)
    half = export.run(path, tmp_path / "half.safetensors", encoder_only=True, half=True)
    assert half.parameters == whole.parameters and half.megabytes < 0.7 * whole.megabytes
    opened, exact = open_checkpoint(tmp_path / "half.safetensors"), open_checkpoint(path)
    assert opened.origin is Origin.RUN and opened.digest == half.digest
    for name, value in opened.weights.items():
        if name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            assert torch.equal(value, exact.weights[name])
        else:
            assert torch.equal(value, exact.weights[name].half())
    rounded, precise = (
        ponderv2.load(tmp_path / f"{n}.safetensors").features(cloud) for n in ("half", "whole")
    )
    torch.testing.assert_close(rounded, precise, atol=2e-3 * float(precise.abs().max()), rtol=0)
