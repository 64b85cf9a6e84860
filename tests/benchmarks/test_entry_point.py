"""One command runs the benchmarks and reports their ratios."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import CURVES, ITEMS
from benchmarks.__main__ import listing, ratios
from benchmarks.evaluation_voting import main as main_of_another
from benchmarks.image_rendering import build, compare

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_everything_that_is_listed_can_be_run() -> None:
    assert listing().row_count == len(ITEMS) + len(CURVES)
    for name in (*ITEMS, *CURVES):
        text = (FOLDER / f"{name}.py").read_text()
        assert "def main(" in text, name
        assert f"`{name}`" in (FOLDER / "README.md").read_text(), name


def test_ratios_are_found_wherever_they_stand() -> None:
    found = {
        "room": {"ratio": 2.0, "seconds": 1.0, "ratio_before": 1.5},
        "rows": [{"mode": "train", "points": 10, "ratio": 3, "speed": 4.5}],
    }
    assert dict(ratios(found)) == {
        "room": 2.0,
        "room, ratio_before": 1.5,
        "rows, train points 10": 3.0,
    }


def test_a_benchmark_is_run_and_its_json_kept(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "s3dis_reading", "--quick", "--json", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER.parent, check=True)
    kept = json.loads((tmp_path / "s3dis_reading.json").read_text())
    assert "np.loadtxt" in done.stdout and len(kept) == 2
    assert all(row["ratio"] > 0 for row in kept.values())


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    command = [sys.executable, "-m", "benchmarks", "rendered_images"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER.parent)
    assert (
        done.returncode == 2
        and "no benchmark called rendered_images" in done.stderr
        and "image_rendering" in done.stderr
    )


def test_arguments_are_those_of_the_call_not_of_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main_of_another(["--help"])
    assert "--network-points" in capsys.readouterr().out


def test_the_plain_picture_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.image_rendering.CHUNK", 8)
    found = compare(build(0, grid=(8, 16, 16)), 1)
    assert found["largest_color_difference"] < 1e-4
    assert found["largest_distance_difference"] < 1e-3
