"""Checkpoints: round trip, damage of every kind, full disks, foreign and hostile files."""

from __future__ import annotations

import pickle
import random
import resource
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ponderv2.errors import CheckpointError, OutputError
from ponderv2.training.checkpoint import Checkpoint, load_checkpoint, read_archive, save_checkpoint
from ponderv2.training.checkpoint_manager import CheckpointManager
from ponderv2.training.weights import load_weights
from tests.training.processes import run_ranks


def _checkpoint(step: int = 3) -> Checkpoint:
    model = {"layer.weight": torch.arange(2000.0).reshape(40, 50) + step, "layer.bias": torch.ones(3)}
    return Checkpoint(
        kind="toy",
        config={"model": {"a": 1, "b": [1, 2], "c": None}},
        model=model,
        step=step,
        history=[{"x": 0.5}],
    )


def _write(folder: Path, step: int = 3) -> Path:
    path = folder / "last.pth"
    save_checkpoint(path, _checkpoint(step))
    return path


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    loaded = load_checkpoint(_write(tmp_path))
    truth = _checkpoint()
    assert (loaded.kind, loaded.config, loaded.step, loaded.history) == ("toy", truth.config, 3, [{"x": 0.5}])
    assert all(torch.equal(loaded.model[name], value) for name, value in truth.model.items())


def test_torch_reads_it_without_running_code(tmp_path: Path) -> None:
    contents = torch.load(_write(tmp_path), weights_only=True)
    assert contents["format"] == "ponder" and contents["step"] == 3


def test_saving_leaves_no_other_file(tmp_path: Path) -> None:
    path = _write(tmp_path)
    save_checkpoint(path, _checkpoint(4), keep=tmp_path / "previous.pth")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.pth", "previous.pth"]
    assert load_checkpoint(path).step == 4 and load_checkpoint(tmp_path / "previous.pth").step == 3


def test_two_hundred_cuts_are_noticed(tmp_path: Path) -> None:
    path = _write(tmp_path)
    whole = path.read_bytes()
    numbers = random.Random(0)
    for _ in range(200):
        path.write_bytes(whole[: numbers.randrange(len(whole))])
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(path)
        assert "\n" not in caught.value.message


def test_two_hundred_flipped_bytes_are_noticed(tmp_path: Path) -> None:
    path = _write(tmp_path)
    whole = path.read_bytes()
    numbers = random.Random(0)
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[numbers.randrange(len(whole))] ^= 1 << numbers.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            load_checkpoint(path)


class _Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_does_nothing(tmp_path: Path, zipped: bool) -> None:
    path, target = tmp_path / "evil.pth", tmp_path / "touched"
    torch.save({"state_dict": _Hostile(target)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"more than plain data|damaged"):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps(_Hostile(target)))
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    assert not target.exists()


def test_an_archive_that_unpacks_to_a_thousand_times_its_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 50_000_000)
    with pytest.raises(CheckpointError, match="unpack"):
        read_archive(path)


@pytest.mark.parametrize("contents", [b"", b"not a checkpoint", b"PK\x03\x04"])
def test_other_files_are_refused_in_one_sentence(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(contents)
    with pytest.raises(CheckpointError, match=r"damaged|more than plain data"):
        load_checkpoint(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*nothing\.pth"):
        load_checkpoint(tmp_path / "nothing.pth")


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "foreign.pth")
    with pytest.raises(CheckpointError, match="not a checkpoint of this program"):
        load_checkpoint(tmp_path / "foreign.pth")


def _save_on_a_full_disk(_: int, folder: Path) -> str:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
    try:
        save_checkpoint(folder / "last.pth", _checkpoint(9), keep=folder / "previous.pth")
    except OutputError as error:
        return f"{error.message} | {error.fix}"
    return "no error"


def test_a_full_disk_leaves_the_old_file_and_says_how_much_was_needed(tmp_path: Path) -> None:
    path = _write(tmp_path)
    (message,) = run_ranks(_save_on_a_full_disk, 1, tmp_path)
    assert "cannot write" in message and "needed" in message and "free" in message and "intact" in message
    assert [file.name for file in tmp_path.iterdir()] == ["last.pth"]
    assert load_checkpoint(path).step == 3


def test_a_damaged_last_falls_back_to_the_one_before(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    manager.put(_checkpoint(1))
    manager.put(_checkpoint(2), is_best=True)
    manager.put(_checkpoint(3))
    assert manager.newest().checkpoint.step == 3
    manager.last.write_bytes(manager.last.read_bytes()[:500])
    found = manager.newest()
    assert found.checkpoint.step == 2 and found.path == manager.previous
    assert "last.pth is damaged" in found.problems[0]
    assert load_checkpoint(manager.best).step == 2


def test_nothing_readable_names_the_first_problem(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    manager.put(_checkpoint(1))
    manager.last.write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"no checkpoint to continue from: .*last\.pth"):
        manager.newest()


class _Model(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.backbone = nn.Linear(3, width)
        self.head = nn.Linear(width, 2)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_prefixes_of_distributed_training_are_understood(prefix: str) -> None:
    source, model = _Model(), _Model()
    report = load_weights(model, {prefix + name: value for name, value in source.state_dict().items()})
    assert len(report.matched) == 4 and not report.missing
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("prefix", ["backbone.", "module.backbone."])
def test_a_wrapped_model_gives_its_backbone(prefix: str) -> None:
    source, model = _Model(), _Model()
    wrapped = {f"{prefix}backbone.{name}": value for name, value in source.backbone.state_dict().items()}
    wrapped["module.seg_head.weight"] = torch.zeros(1)
    report = load_weights(model, wrapped, required_prefixes=("backbone.",), least_share=1.0)
    assert report.missing == ("head.weight", "head.bias") and report.unexpected == ("seg_head.weight",)
    assert torch.equal(model.backbone.weight, source.backbone.weight)


def test_other_shapes_are_named_and_nothing_is_copied() -> None:
    model = _Model(4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"backbone.weight: file \(6, 3\), model \(4, 3\)"):
        load_weights(model, _Model(6).state_dict(), source="a.pth", required_prefixes=("backbone.",))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("contents", [b"ply\nformat ascii 1.0\n", b"\x89PNG\r\n\x1a\n", b"{}", b""])
def test_a_file_of_another_kind_is_called_no_checkpoint(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "room.ply"
    path.write_bytes(contents)
    with pytest.raises(CheckpointError, match="not a checkpoint: it does not begin as one"):
        load_checkpoint(path)
