"""A command opens its checkpoint once: one `torch.load`, and every byte of it hashed once."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ponder_cli.app import app
from ponderv2.tasks.checkpoints import open_checkpoint
from ponderv2.training import checkpoint as files
from ponderv2.training.open_checkpoint import Origin
from ponderv2.workflows import finetune, pretrain
from ponderv2.workflows.training_runs import RunRequest
from tests.workflows.tiny import finetune_config, pretrain_config, rooms


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rooms, a pre-trained model and a segmentation model, each alone in a folder."""
    folder = tmp_path_factory.mktemp("runs")
    scenes = rooms(folder / "rooms")
    pre = pretrain.run(pretrain_config(steps=1, evaluate_every=0), scenes=scenes, out=folder, name="pre")
    fine = finetune.run(finetune_config(steps=1, evaluate_every=0), scenes=scenes, out=folder, name="fine")
    for name, result in (("pre.pth", pre), ("fine.pth", fine)):
        shutil.copy(result.checkpoint, folder / name)
    return folder


class Counts:
    """What was done with one file."""

    def __init__(self) -> None:
        self.loads = self.hashed = 0


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Counts]:
    """Watches `torch.load` of a file, and how many of its bytes go into SHA-256."""

    def watch(path: Path) -> Counts:
        counts, load, sha256 = Counts(), torch.load, hashlib.sha256
        contents = path.read_bytes()

        def counting_load(file, *args, **kwargs):
            counts.loads += Path(file) == path
            return load(file, *args, **kwargs)

        class CountingHash:
            def __init__(self, data: bytes = b"") -> None:
                self.inner = sha256()
                self.update(data)

            def update(self, data) -> None:
                part = bytes(data)
                if len(part) > 1000 and part in contents:
                    counts.hashed += len(part)
                self.inner.update(part)

            def __getattr__(self, name: str):
                return getattr(self.inner, name)

        monkeypatch.setattr(torch, "load", counting_load)
        monkeypatch.setattr(hashlib, "sha256", CountingHash)
        monkeypatch.setattr(hashlib, "file_digest", _no_file_digest(path))
        return counts

    return watch


def _no_file_digest(path: Path):
    real = hashlib.file_digest

    def digest(stream, *args):
        assert Path(stream.name) != path, "the checkpoint was hashed a second time"
        return real(stream, *args)

    return digest


SMALL = ("--set", "width=8", "--set", "depth_range=[0.1,5]", "--set", "cameras.stride=100")
WHOLE = ("--set", "resolution=8", "--set", "crop_to_observed=false", "--set", "min_component_faces=0")
COMMANDS = {
    "render": ("render", "{pre}", "--scene", "room0", "--split", "val", "--out", "{out}/frames", *SMALL),
    "reconstruct": ("reconstruct", "{pre}", "--scene", "room0", "--out", "{out}/mesh.ply", *WHOLE),
    "eval views": ("eval", "{pre}", "--out", "{out}/views"),
    "eval": ("eval", "{fine}", "--out", "{out}/classes"),
    "features": ("features", "{pre}", "--split", "val", "--out", "{out}/features"),
    "export": ("export", "{pre}", "--out", "{out}/official.pth"),
    "inspect": ("inspect", "{fine}"),
    "finetune": ("finetune", "--from", "{pre}", "--preset", "{preset}", "--out", "{out}", "--name", "run"),
}
PRESET = """
data: {cache_megabytes: 64, sphere_crop: null}
model: {head: {kind: linear, n_classes: 3}}
training: {steps: 1, batch_size: 2, device: cpu, tensorboard: false, evaluate_every: 0}
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_reads_and_hashes_its_checkpoint_once(
    runs: Path, tmp_path: Path, counted: Callable[[Path], Counts], command: str
) -> None:
    (tmp_path / "own.yaml").write_text(PRESET)
    places = {
        "pre": runs / "pre.pth",
        "fine": runs / "fine.pth",
        "out": tmp_path,
        "preset": tmp_path / "own.yaml",
    }
    words = [word.format(**places) for word in COMMANDS[command]]
    path = runs / ("fine.pth" if "{fine}" in COMMANDS[command] else "pre.pth")
    counts = counted(path)
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code == 0, ran.output
    assert counts.loads == 1
    archive = path.stat().st_size - files._COMMENT_LENGTH
    assert counts.hashed == archive


def test_another_process_gets_the_path_and_reads_the_file_itself(
    runs: Path, counted: Callable[[Path], Counts]
) -> None:
    opened = open_checkpoint(runs / "pre.pth")
    request = RunRequest(finetune_config(), runs, opened)
    sent = pickle.dumps(request)
    assert len(sent) < 20_000 < sum(value.nbytes for value in opened.weights.values())
    counts = counted(runs / "pre.pth")
    received = pickle.loads(sent).start
    assert counts.loads == 0
    assert received.kind == "pretext" and received.digest == opened.digest and counts.loads == 1
    for name, value in opened.weights.items():
        assert torch.equal(received.weights[name], value)
    assert counts.loads == 1


@pytest.mark.parametrize(
    "words", [("features", "--split", "val"), ("eval",), ("export",), ("finetune", "--from"), ("inspect",)]
)
def test_a_refined_scene_is_no_model_and_every_command_says_so(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    config = {"scene": "room0", "frame_ids": []}
    path = tmp_path / "refined.pth"
    files.save_checkpoint(path, files.Checkpoint("refined_scene", config, {"x": torch.zeros(3)}, step=7))
    out = () if words == ("inspect",) else ("--out", tmp_path / "out.pth")
    ran = CliRunner().invoke(app, [*words, *map(str, (path, *out))])
    if words == ("inspect",):
        assert ran.exit_code == 0 and "refined_scene" in ran.output
    else:
        assert ran.exit_code == 2 and "holds no model of a known kind but 'refined_scene'" in ran.output


def test_a_run_folder_stands_for_its_best_checkpoint(runs: Path) -> None:
    opened = open_checkpoint(runs / "fine")
    assert opened.path == runs / "fine" / "checkpoints" / "best.pth"
    assert (opened.origin, opened.kind, opened.step) == (Origin.RUN, "segmentation", 1)
    assert opened.scenes == runs / "rooms" and opened.classes["names"] == ["wall", "floor", "ceiling"]
