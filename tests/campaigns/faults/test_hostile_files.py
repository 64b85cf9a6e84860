"""Files that were made to do harm are refused by one clean error, and nothing happens beside that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ponder_cli.app import app
from ponderv2.data.label_budget import _read_points
from ponderv2.data.scene_folder import open_folder
from ponderv2.errors import PonderError
from ponderv2.heads.text_embeddings import _read as read_embeddings
from ponderv2.scenes.point_cloud_files import read_cloud
from tests.campaigns.faults import hostile_files
from tests.conftest import PROJECT
from tests.workflows.tiny import rooms

CONTAINERS = tuple(hostile_files.pickles("true"))


@pytest.fixture
def flag(tmp_path: Path) -> Path:
    """Touched by every hostile file that is trusted."""
    return tmp_path / "flag"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small scene store."""
    return rooms(tmp_path_factory.mktemp("store") / "rooms")


def ponder(*words: object) -> Any:
    """The program, in this process."""
    return CliRunner().invoke(app, [str(word) for word in words], prog_name="ponder")


def test_the_files_would_do_harm(flag: Path):
    """What is refused below does run where it is trusted."""
    code = f"import pickle; pickle.loads({hostile_files.pickles(f'touch {flag}')['pickle 2']!r})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT)
    assert flag.exists()


@pytest.mark.parametrize("container", CONTAINERS)
def test_no_command_runs_what_a_checkpoint_holds(tmp_path: Path, flag: Path, scenes: Path, container: str):
    path = tmp_path / "hostile.pth"
    path.write_bytes(hostile_files.pickles(f"touch {flag}")[container])
    for name, words in hostile_files.commands_for(path, scenes, tmp_path / "out").items():
        result = ponder(*words)
        assert result.exit_code == 2 and "error:" in result.stderr, (name, result.stderr)
        assert "Traceback" not in result.stderr
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("container", CONTAINERS)
def test_no_reader_of_scenes_runs_what_a_pickle_holds(tmp_path: Path, flag: Path, container: str):
    data = hostile_files.pickles(f"touch {flag}")[container]
    store = hostile_files.pickled_store(tmp_path / "store", data)
    with pytest.raises(PonderError):
        open_folder(store).read("scene0000_00")
    with pytest.raises(PonderError):
        _read_points(store / "train/scene0000_00.pth", "")
    assert not flag.exists() and [one.name for one in tmp_path.iterdir()] == ["store"]


def test_no_array_of_objects_is_unpickled(tmp_path: Path, flag: Path):
    data = hostile_files.object_array(f"touch {flag}")
    for number, name in enumerate(("color.npy", "segment.npy", "coord.npy", "frames/cameras.npz")):
        contents = hostile_files.npz_of(data) if name.endswith("npz") else data
        store = hostile_files.array_store(tmp_path / f"store{number}", name, contents)
        with pytest.raises(PonderError, match=Path(name).stem):
            open_folder(store).read("room0")
    file = tmp_path / "rows.npy"
    file.write_bytes(data)
    for read in (read_cloud, read_embeddings):
        with pytest.raises(PonderError, match=r"rows\.npy"):
            read(file)
    assert not flag.exists()


@pytest.mark.parametrize("kind", sorted(hostile_files.YAMLS))
def test_yaml_is_plain_data_wherever_it_is_read(tmp_path: Path, flag: Path, kind: str):
    text = hostile_files.YAMLS[kind].replace("{command}", f"touch {flag}")
    preset = tmp_path / "hostile.yaml"
    preset.write_text(text)
    value = text.partition(": ")[2].partition("\n")[0]
    for words in (("--preset", preset), ("--set", f"training={value}")):
        result = ponder("pretrain", *words, "--data", tmp_path, "--out", tmp_path / "runs")
        assert result.exit_code == 2 and "Traceback" not in result.stderr, result.stderr
    store = hostile_files.array_store(tmp_path / "store", "notes.txt", b"")
    (store / "dataset.yaml").write_text(f"name: rooms\nsplits: [train]\n{text}class_names: *j\n"[: 1 << 16])
    with pytest.raises(PonderError, match=r"dataset\.yaml"):
        open_folder(store)
    assert not flag.exists() and not (tmp_path / "runs").exists()


def test_decompression_bombs_are_not_unpacked(tmp_path: Path):
    """In a process that has but 64 MiB more than it needs: each file unpacks to more."""
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from tests.campaigns.faults import hostile_files as files\n"
        "from ponderv2.errors import PonderError\n"
        f"cases = files.bombs(Path({str(tmp_path)!r}))\n"
        "pages = int(open('/proc/self/statm').read().split()[0])\n"
        "most = pages * resource.getpagesize() + (64 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
        "for name, read in cases.items():\n"
        "    try: read(); print('read', name)\n"
        "    except PonderError as error: print('refused', name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == 11 and all(line.startswith("refused") for line in lines), done.stdout


def test_members_of_archives_do_not_leave_their_folder(tmp_path: Path):
    inside = tmp_path / "inside"
    inside.mkdir()
    for read in hostile_files.escapes(inside).values():
        with pytest.raises((PonderError, ValueError)):
            read()
    assert [one.name for one in tmp_path.iterdir()] == ["inside"]
    assert all(one.suffix == ".zip" for one in inside.iterdir())
