"""Archives for the instance benchmark: written, read back line by line, and refused where they are wrong."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from ponderv2.errors import OutputError
from ponderv2.evaluation.instances import PredictedInstances
from ponderv2.tasks.instances.submission import check_instance_submission, write_instance_submission

IDS = (1, 2, 5, 36)
SIZES = {"scene0707_00": 6, "scene0708_00": 4}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two objects in one scene, none in the other."""
    member = torch.tensor([0, 0, -1, 1, 1, -1])
    instances = PredictedInstances.of_members(member, torch.tensor([2, 3]), torch.tensor([0.5, 0.125]))
    none = PredictedInstances.of_members(torch.full((4,), -1), torch.zeros(0).long(), torch.zeros(0))
    scenes = [("scene0707_00", 6, instances), ("scene0708_00", 4, none)]
    return write_instance_submission(tmp_path / "out.zip", scenes, IDS)


def test_archive_holds_a_line_per_object_and_a_digit_per_vertex(archive: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        contents = {name: file.read(name).decode() for name in file.namelist()}
    assert contents == {
        "predicted_masks/scene0707_00_000.txt": "1\n1\n0\n0\n0\n0\n",
        "predicted_masks/scene0707_00_001.txt": "0\n0\n0\n1\n1\n0\n",
        "scene0707_00.txt": "predicted_masks/scene0707_00_000.txt 5 0.500000\n"
        "predicted_masks/scene0707_00_001.txt 36 0.125000\n",
        "scene0708_00.txt": "",
    }
    assert check_instance_submission(archive, SIZES, IDS[2:]) == ()


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("scene0708_00.txt", "masks/a.txt 5 0.5\n", "there is no file masks/a.txt"),
        ("scene0708_00.txt", "../a.txt 5 0.5\n", "leads out of the archive"),
        ("scene0708_00.txt", "predicted_masks/a.txt 5\n", "expected 'mask id confidence'"),
        ("scene0708_00.txt", "predicted_masks/b.txt 2 0.5\n", "2 is not the id of a class with objects"),
        ("scene0708_00.txt", "predicted_masks/b.txt 5 nan\n", "the confidence nan is not a number"),
        ("predicted_masks/scene0707_00_001.txt", "0\n1\n", "2 lines, the mesh has 6 vertices"),
        ("predicted_masks/scene0707_00_001.txt", "0\n1\n2\n0\n0\n0\n", "nothing but 0 and 1"),
        ("predicted_masks/scene0707_00_001.txt", "0\n" * 6, "the mask is empty"),
        ("predicted_masks/b.txt", "1\n", "predicted_masks/b.txt: no scene names it"),
        ("scene0999_00.txt", "", "scene0999_00.txt: not a scene of this split"),
    ],
)
def test_what_the_benchmark_would_refuse_is_named(
    archive: Path, tmp_path: Path, name: str, text: str, problem: str
) -> None:
    with zipfile.ZipFile(archive) as file:
        contents = {one: file.read(one).decode() for one in file.namelist()}
    contents[name] = text
    with zipfile.ZipFile(tmp_path / "wrong.zip", "w") as file:
        for one, lines in contents.items():
            file.writestr(one, lines)
    problems = check_instance_submission(tmp_path / "wrong.zip", SIZES, IDS[2:])
    assert any(problem in one for one in problems), problems


def test_scenes_that_are_missing_are_named(archive: Path) -> None:
    problems = check_instance_submission(archive, SIZES | {"scene0709_00": 3}, IDS)
    assert problems == ("scene0709_00.txt: is missing",)


def test_a_file_that_is_no_archive_is_an_error_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_text("no archive")
    with pytest.raises(OutputError, match="not a zip archive"):
        check_instance_submission(tmp_path / "a.zip", SIZES, IDS)
