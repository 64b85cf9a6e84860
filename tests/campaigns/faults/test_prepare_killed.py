"""`prepare` that is killed, or whose disk fills: finished scenes stay whole, a second run completes it."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ponderv2.errors import OutputError
from ponderv2.scenes.prepared import PreparedCloud, SceneStream
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.store.store import SceneStore
from ponderv2.workflows import prepare_report
from tests.campaigns.faults import prepare_kills
from tests.conftest import PROJECT


def test_killed_anywhere_it_ends_with_the_same_bytes(tmp_path: Path):
    """Further kills, of other sources, are in tests/campaigns/soak_inputs.py."""
    module = "tests.campaigns.faults.prepare_kills"
    words = [sys.executable, "-m", module, str(tmp_path / "runs"), "--kills", "3"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=PROJECT)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["straight"][:2] == [0, 0] and len(found["kills"]) == 3
    assert sum(one["killed"] for one in found["kills"]) >= 2
    assert all(one["whole_scenes_before"] for one in found["kills"])
    assert all(one["rerun_status"] == 0 and one["equal"] for one in found["kills"]), found


def _scene(n_points: int) -> SceneStream:
    points = np.random.default_rng(n_points).random((n_points, 3)).astype(np.float32)
    return SceneStream.of(PreparedCloud(points, points.astype(np.uint8), points + 1))


def test_a_scene_that_was_set_aside_comes_back(tmp_path: Path):
    """As a kill between the two renames of a replacement leaves it."""
    store = SceneStore(tmp_path, DatasetInfo("rooms"))
    store.write("train", "room", _scene(5))
    (tmp_path / "train/room").rename(tmp_path / "train/.room.old")
    assert store.names("train") == ()
    store.restore_interrupted("room", "train")
    assert len(store.read("room", "train").cloud) == 5


def test_half_written_scenes_are_none_and_are_removed_by_the_next_writer(tmp_path: Path):
    """Of a process that is no more; another's that lives are left alone."""
    store = SceneStore(tmp_path, DatasetInfo("rooms"))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = _names_of_partial_folders(tmp_path, dead.pid)
    for name in names:
        (tmp_path / "train/scene_1" / name).mkdir(parents=True)
        np.save(tmp_path / "train/scene_1" / name / "coord.npy", np.zeros((3, 3), np.float32))
    assert store.names("train") == ()
    store.write("train", "scene_1/room_2", _scene(5))
    assert store.names("train") == ("scene_1/room_2",)
    left = {path.name for path in (tmp_path / "train/scene_1").iterdir()}
    assert left == {"room_2", names[1]}


def _names_of_partial_folders(folder: Path, process: int) -> tuple[str, str]:
    from ponderv2.io.files import machine

    return f".room_2.{machine()}-{process}.partial", f".room_2.{machine()}-1.partial"


def test_a_disk_that_fills_leaves_what_was_there_and_names_the_space(tmp_path: Path):
    """A file may not grow beyond the limit, as on a full disk; the old scene stays loadable."""
    store = SceneStore.create(tmp_path, DatasetInfo("rooms"))
    store.write("train", "room", _scene(50))
    before = prepare_kills.contents(tmp_path)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(OutputError, match=r"MiB needed, .* MiB free") as caught:
            store.write("train", "room", _scene(50_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "free some space" in (caught.value.fix or "")
    assert prepare_kills.contents(tmp_path) == before
    assert len(store.read("room", "train").cloud) == 50
    assert prepare_report.REPORT_FILE not in before
