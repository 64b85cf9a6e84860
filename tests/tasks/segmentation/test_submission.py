"""Archives for the ScanNet benchmarks against archives that are put together by hand."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from ponderv2.datasets.benchmarks import SCANNET, SCANNET200, benchmark_of
from ponderv2.datasets.scannet.scannet20 import CLASS_NAMES
from ponderv2.errors import OutputError
from ponderv2.tasks.segmentation.submission import check_submission, write_submission

SIZES = {"scene0707_00": 3, "scene0708_00": 2}
GOOD = {"scene0707_00.txt": "1\n39\n36\n", "scene0708_00.txt": "2\n2\n"}


def archive(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as stream:
        for name, text in files.items():
            stream.writestr(name, text)
    return path


def test_written_archives_are_the_published_ones(tmp_path: Path) -> None:
    scenes = [("scene0707_00", torch.tensor([1, 39, 36])), ("scene0708_00", torch.tensor([2, 2]))]
    path = write_submission(tmp_path / "new" / "out.zip", iter(scenes))
    with zipfile.ZipFile(path) as stream:
        assert {name: stream.read(name).decode() for name in stream.namelist()} == GOOD
    assert check_submission(path, SIZES, SCANNET.label_ids) == ()
    assert [entry.name for entry in path.parent.iterdir()] == ["out.zip"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"scene0707_00.txt": "1\n39\n"}, "2 lines, the mesh has 3 vertices"),
        ({"scene0707_00.txt": "1\n13\n36\n"}, "id 13 is not one of the 20 classes"),
        ({"scene0707_00.txt": "1\n3.0\n36\n"}, "'3.0' is not a whole number"),
        ({"scene0707_00.txt": "1\n-1\n36\n"}, "'-1' is not a whole number"),
        ({"scene0707_00.txt": "1\n\n36\n"}, "'' is not a whole number"),
        ({"predictions/scene0708_00.txt": "2\n2\n"}, "the files must stand at the top"),
        ({"scene0709_00.txt": "2\n"}, "not a scene of this split"),
        ({"notes.txt": "2\n"}, "not the name of a scene"),
    ],
)
def test_what_the_server_refuses_is_found(tmp_path: Path, changes: dict[str, str], problem: str) -> None:
    path = archive(tmp_path / "out.zip", GOOD | changes)
    assert any(problem in found for found in check_submission(path, SIZES, SCANNET.label_ids))


def test_missing_scenes_and_other_files_are_found(tmp_path: Path) -> None:
    path = archive(tmp_path / "out.zip", {"scene0707_00.txt": "1\n39\n36\n"})
    assert check_submission(path, SIZES, SCANNET.label_ids) == ("scene0708_00.txt: is missing",)
    (tmp_path / "no.zip").write_text("1\n2\n")
    with pytest.raises(OutputError, match="not a zip archive"):
        check_submission(tmp_path / "no.zip", SIZES, SCANNET.label_ids)


def test_benchmarks_are_known_by_their_classes_in_order() -> None:
    assert benchmark_of(CLASS_NAMES) is SCANNET
    assert benchmark_of(tuple(reversed(CLASS_NAMES))) is None
    assert (SCANNET.label_ids[0], SCANNET.label_ids[-1], len(SCANNET.label_ids)) == (1, 39, 20)
    assert len(SCANNET200.label_ids) == len(set(SCANNET200.label_ids)) == 200
    sizes = {name: len(classes) for name, classes in SCANNET200.groups.items()}
    assert sizes == {"head": 66, "common": 68, "tail": 66}
    assert sorted(sum(SCANNET200.groups.values(), ())) == list(range(200))
