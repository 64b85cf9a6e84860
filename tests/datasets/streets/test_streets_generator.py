"""Folders of generated streets: what is whole, what is refused, what the tables hold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from ponderv2.datasets.kinds import generator_of
from ponderv2.datasets.reader import DatasetGenerator
from ponderv2.datasets.streets.config import StreetsConfig
from ponderv2.datasets.streets.generator import RECORDS
from ponderv2.errors import SceneError
from ponderv2.io.files import write_bytes
from ponderv2.synthetic.streets import recording
from ponderv2.synthetic.streets.config import StreetConfig
from ponderv2.synthetic.streets.names import VERSION
from ponderv2.synthetic.streets.tables import SceneRecords
from ponderv2.workflows.config import PrepareConfig
from ponderv2.workflows.prepare import run
from tests.workflows.heard import Heard


@dataclass
class QuickRecorder:
    """Writes one label file and one record, in place of a street that takes a minute."""

    index: int
    name: str
    config: StreetConfig
    root: Path

    def run(self) -> recording.SceneResult:
        records = SceneRecords(f"{self.config.seed}/{self.index}")
        token = records.token("data")
        name = f"lidarseg/{VERSION}/{token}_lidarseg.bin"
        write_bytes(self.root / name, bytes([self.index, self.config.seed]))
        records.add("lidarseg", {"token": token, "sample_data_token": token, "filename": name})
        records.add("scene", {"token": records.token("scene"), "name": self.name})
        return recording.SceneResult(records, 100, 6, 3, "clear", 50.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "Recorder", QuickRecorder)


def prepare(root: Path, **settings: object) -> tuple[list[str], Heard]:
    source = StreetsConfig.model_validate({"scenes": 3, **settings})
    heard = Heard()
    found = run(PrepareConfig(source=source, out=root, workers=1), heard)
    return [one.status for one in found.scenes], heard


def scenes(root: Path) -> list[str]:
    return [one["name"] for one in json.loads((root / VERSION / "scene.json").read_text())]


def find(**settings: object) -> DatasetGenerator:
    found = generator_of(StreetsConfig.model_validate(settings))
    assert found is not None
    return found


def test_a_second_run_skips_what_is_whole_and_adds_what_is_new(tmp_path: Path) -> None:
    assert prepare(tmp_path)[0] == ["done"] * 3
    assert sorted(prepare(tmp_path, scenes=5)[0]) == ["done", "done", "skipped", "skipped", "skipped"]
    assert scenes(tmp_path) == ["scene-0001", "scene-0002", "scene-0003", "scene-0004", "scene-0005"]
    assert prepare(tmp_path, scenes=2)[0] == ["skipped"] * 2
    assert len(scenes(tmp_path)) == 5


def test_a_street_with_a_missing_file_is_generated_again_with_the_same_bytes(tmp_path: Path) -> None:
    prepare(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    next((tmp_path / "lidarseg" / VERSION).iterdir()).unlink()
    assert sorted(prepare(tmp_path)[0]) == ["done", "skipped", "skipped"]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_label_files_of_an_interrupted_street_do_not_stay(tmp_path: Path) -> None:
    """nuscenes-devkit refuses a folder with more label files than records."""
    prepare(tmp_path)
    (tmp_path / RECORDS / "scene-0004.json").unlink()
    assert prepare(tmp_path, scenes=2)[0] == ["skipped"] * 2
    assert len(list((tmp_path / "lidarseg" / VERSION).iterdir())) == 2


def test_other_settings_are_refused(tmp_path: Path) -> None:
    prepare(tmp_path)
    with pytest.raises(SceneError, match="other settings") as error:
        prepare(tmp_path, seed=1)
    assert "--out" in (error.value.fix or "")


def test_a_folder_of_real_data_is_refused_and_left_alone(tmp_path: Path) -> None:
    table = tmp_path / "v1.0-mini" / "scene.json"
    write_bytes(table, b"[]")
    with pytest.raises(SceneError, match="not generated"):
        prepare(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [table]


def test_more_streets_than_names_are_refused_before_the_work() -> None:
    with pytest.raises(SceneError, match="150 names"):
        find(scenes=800)


def test_settings_that_shape_a_street_change_its_fingerprint_and_their_number_does_not() -> None:
    def of(**settings: object) -> str:
        return find(**settings).scenes[0].fingerprint()

    assert of(scenes=3) == of(scenes=9)
    assert len({of(), of(seed=1), of(width=200), of(camera_rate=12), of(traffic=2.0)}) == 5


@pytest.mark.parametrize("settings", [{"width": 8}, {"columns": 3}, {"camera_rate": 5}, {"traffic": 0.0}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        StreetsConfig.model_validate(settings)
