"""Many scenes: the disk is asked first, a cluster may do the work, the end counts what happened."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ponderv2.checks.check import CheckResult
from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.generated.config import SyntheticConfig
from ponderv2.datasets.reader import DatasetReader
from ponderv2.errors import OutputError, ResourceError, SceneError
from ponderv2.scenes.prepared import PreparedCloud, PreparedScene, SceneStream
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.workflows import prepare, prepare_report, prepare_space, prepare_workers
from ponderv2.workflows.config import PrepareConfig
from ponderv2.workflows.prepare_report import ReasonCount, SceneOutcome, kind_of, report_outcome
from ponderv2.workflows.prepare_space import SpaceEstimate, estimate_space, readable
from tests.workflows.heard import Heard

WITH_DASK = importlib.util.find_spec("distributed") is not None


@dataclass(frozen=True)
class PointsScene:
    """Four points, or what is wrong with them."""

    name: str
    wrong: str = ""
    repair: str = ""
    split: str = "train"

    def fingerprint(self) -> str:
        return self.name

    def read(self) -> SceneStream:
        if self.wrong:
            raise SceneError(self.wrong, fix="look elsewhere")
        points = np.zeros((4, 3), np.float32)
        cloud = PreparedCloud(points, points.astype(np.uint8), points + 1)
        repairs = (self.repair,) if self.repair else ()
        return SceneStream((), lambda: PreparedScene(cloud, None, (), repairs))


@dataclass(frozen=True)
class LargeScene(PointsScene):
    """Says that it needs a gigabyte."""

    def estimated_bytes(self) -> int:
        return 10**9


def config(out: Path, **settings) -> PrepareConfig:
    return PrepareConfig(source=SyntheticConfig(), out=out, workers=1, **settings)


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch):
    """Puts jobs in the place of a source."""

    def offer(*jobs: PointsScene, warnings: tuple[str, ...] = ()) -> None:
        found = DatasetReader(DatasetInfo("points"), jobs, (), warnings)
        monkeypatch.setattr("ponderv2.workflows.prepare.reader_of", lambda *_: found)

    return offer


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch):
    """A disk with N bytes left."""

    def has(n_bytes: int) -> None:
        monkeypatch.setattr(prepare_space.shutil, "disk_usage", lambda _: SimpleNamespace(free=n_bytes))

    return has


# Space ------------------------------------------------------------------------------------------------------


def test_a_disk_that_is_too_small_stops_the_run_before_it_starts(tmp_path: Path, plan, free):
    plan(LargeScene("a"), LargeScene("b"))
    free(1_500_000_000)
    with pytest.raises(OutputError, match=r"2 scenes need about 2\.0 GB, 1\.5 GB are free") as caught:
        prepare.run(config(tmp_path / "out"))
    assert "check_space=false" in (caught.value.fix or "") and not (tmp_path / "out").exists()
    assert prepare.run(config(tmp_path / "out", check_space=False)).n_prepared == 2
    assert prepare.run(config(tmp_path / "out")).n_skipped == 2  # nothing is left to be written


def test_jobs_that_cannot_tell_count_as_the_mean_of_the_others(tmp_path: Path, free):
    free(10**12)
    found = estimate_space([LargeScene("a"), PointsScene("b"), PointsScene("c")], tmp_path / "not" / "there")
    assert found == SpaceEstimate(3 * 10**9, 10**12, 3, 2) and found.suffices
    assert estimate_space([PointsScene("a")], tmp_path).needed == 0


def test_sizes_are_written_as_df_does():
    assert [readable(one) for one in (12, 999_400, 1_500_000, 2_340_000_000_000)] == [
        "12 bytes",
        "999 kB",
        "1.5 MB",
        "2.3 TB",
    ]


# The end ----------------------------------------------------------------------------------------------------


def test_reasons_are_counted_by_kind(tmp_path: Path, plan):
    archive = "Structured3D_panorama_0{}.zip: a/b/depth.png is damaged"
    plan(
        PointsScene("a"),
        PointsScene("b", repair="view 3 was left out: " + archive.format(1)),
        PointsScene("c", repair="view 7 was left out: " + archive.format(2)),
        PointsScene("d", wrong="no points in scene_00001/room_5"),
        warnings=("one archive is broken",),
    )
    result = prepare.run(config(tmp_path))
    assert result.summary == (
        ReasonCount("done", "", 1, "train/a"),
        ReasonCount("repaired", "view … was left out: … is damaged", 2, "train/b"),
        ReasonCount("failed", "no points in …", 1, "train/d"),
    )
    assert result.warnings == ("one archive is broken",)
    again = prepare.run(config(tmp_path))
    assert [(one.status, one.scenes) for one in again.summary] == [("skipped", 3), ("failed", 1)]


def test_kinds_of_reasons_leave_out_numbers_and_names():
    assert kind_of("scene_00001/room_7 has 12 rows, 13.5 wanted") == "… has … rows, … wanted"


def test_the_report_is_complete_although_it_is_not_written_after_every_scene(
    tmp_path: Path, plan, monkeypatch: pytest.MonkeyPatch
):
    plan(*(PointsScene(f"room{index}") for index in range(12)))
    written: list[Path] = []
    real = prepare_report.write_bytes

    def counted(path: Path, data: bytes) -> None:
        written.append(path)
        real(path, data)

    monkeypatch.setattr(prepare_report, "write_bytes", counted)
    prepare.run(config(tmp_path))
    scenes = json.loads((tmp_path / prepare_report.REPORT_FILE).read_text())["scenes"]
    assert len(scenes) == 12 and 2 <= len(written) < 12


def test_two_runs_into_one_folder_keep_each_others_scenes_and_splits(tmp_path: Path, plan, monkeypatch):
    """The second starts after the first has read what is there, and ends before the first does."""
    first = PointsScene("a")
    plan(first)
    real = prepare._divide

    def late(*arguments: Any) -> Any:
        monkeypatch.setattr(prepare, "_divide", real)
        other = DatasetReader(
            DatasetInfo("points", splits=("test",)), (PointsScene("b", split="test"),), (), ()
        )
        monkeypatch.setattr("ponderv2.workflows.prepare.reader_of", lambda *_: other)
        assert prepare.run(config(tmp_path)).n_prepared == 1
        return real(*arguments)

    monkeypatch.setattr(prepare, "_divide", late)
    assert prepare.run(config(tmp_path)).n_prepared == 1
    scenes = json.loads((tmp_path / prepare_report.REPORT_FILE).read_text())["scenes"]
    assert set(scenes) == {"train/a", "test/b"}
    store = open_folder(tmp_path)
    assert {split: store.names(split) for split in ("train", "test")} == {
        "train": ("a",),
        "test": ("b",),
    }
    assert {"train", "test"} <= set(store.info.splits)


# Clusters ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["host:8786", "spark://host:1", "dask://host", "dask:host:1", ""])
def test_an_address_that_is_none_is_refused(tmp_path: Path, plan, address: str):
    plan(PointsScene("a"))
    with pytest.raises(ResourceError, match="not the address of a cluster") as caught:
        prepare.run(config(tmp_path / "out", scheduler=address))
    assert "dask://HOST:8786" in (caught.value.fix or "") and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("kind", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_missing_package_is_named_with_what_installs_it(
    tmp_path: Path, plan, monkeypatch: pytest.MonkeyPatch, kind: str, package: str
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    plan(PointsScene("a"))
    with pytest.raises(ResourceError, match=f"needs the package '{package}'") as caught:
        prepare.run(config(tmp_path / "out", scheduler=f"{kind}://localhost:8786"))
    assert caught.value.fix == f'pip install "ponder[{kind}]"'


@pytest.mark.skipif(not WITH_DASK, reason="the package distributed is not installed")
def test_a_cluster_that_does_not_answer_is_named(tmp_path: Path, plan, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prepare_workers, "CONNECT_SECONDS", 1)
    plan(PointsScene("a"))
    with pytest.raises(ResourceError, match="no cluster answers at dask"):
        prepare.run(config(tmp_path, scheduler="dask://127.0.0.1:9"))


@pytest.fixture
def dask_address() -> Iterator[str]:
    from distributed import LocalCluster  # pyright: ignore[reportMissingImports]

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=None
    ) as cluster:
        address = cluster.scheduler.address
        if not address.startswith("tcp://"):  # workers of threads talk without a socket
            pytest.fail(f"expected an address of a socket, got {address}")
        yield address.replace("tcp://", "dask://")


@pytest.mark.skipif(not WITH_DASK, reason="the package distributed is not installed")
def test_a_dask_cluster_prepares_what_this_machine_does(tmp_path: Path, plan, dask_address: str):
    plan(*(PointsScene(f"room{index}") for index in range(5)), PointsScene("wrong", wrong="nothing there"))
    there = prepare.run(config(tmp_path / "a", scheduler=dask_address))
    here = prepare.run(config(tmp_path / "b"))
    assert there.scenes == here.scenes and there.n_prepared == 5 and there.n_failed == 1
    one, two = (open_folder(tmp_path / store).read("room3").cloud.coord for store in ("a", "b"))
    assert (one == two).all()
    again = prepare.run(config(tmp_path / "a", scheduler=dask_address))
    assert (again.n_skipped, again.n_prepared, again.n_failed) == (5, 0, 1)


# What is reported ------------------------------------------------------------------------------------------


def test_a_suspicion_without_figures_is_a_warning(tmp_path: Path):
    heard = Heard()
    check = CheckResult(0, 0, None, None, None, None, None, True, "depth/3.png is damaged", {})
    report_outcome(SceneOutcome("train", "a", "done", (), check=check), heard)
    harmless = replace(check, suspect=False, likely_cause="no frames with depth")
    report_outcome(SceneOutcome("train", "b", "done", (), check=harmless), heard)
    assert heard.warned == ["train/a: depth/3.png is damaged"]
    assert heard.noted == ["train/b: not checked: no frames with depth"]


def test_other_classes_of_the_same_dataset_are_called_that(tmp_path: Path, plan, monkeypatch):
    plan(PointsScene("a"))
    prepare.run(config(tmp_path))
    found = DatasetReader(DatasetInfo("points", label_field="segment200"), (PointsScene("b"),), (), ())
    monkeypatch.setattr("ponderv2.workflows.prepare.reader_of", lambda *_: found)
    with pytest.raises(SceneError, match="of 'points' with other classes \\('segment', not 'segment200'\\)"):
        prepare.run(config(tmp_path))


def test_a_store_without_boxes_may_get_them_and_other_classes_of_boxes_are_refused(
    tmp_path: Path, plan, monkeypatch
):
    plan(PointsScene("a"))
    prepare.run(config(tmp_path))
    for classes in (("chair",), ("chair", "bed")):
        found = DatasetReader(DatasetInfo("points", box_classes=classes), (PointsScene("b"),), (), ())
        monkeypatch.setattr("ponderv2.workflows.prepare.reader_of", lambda *_, found=found: found)
        if classes == ("chair",):
            prepare.run(config(tmp_path))
            assert open_folder(tmp_path).info.box_classes == classes
            continue
        with pytest.raises(SceneError, match="other classes of boxes"):
            prepare.run(config(tmp_path))
