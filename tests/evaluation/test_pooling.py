"""Evaluations of several models taken together, against one evaluation of all their points."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ponderv2.errors import PresetError
from ponderv2.evaluation.pooling import fold_of, pooled, read_fold
from ponderv2.evaluation.semantic import confusion_matrix, named_metrics
from ponderv2.tasks.segmentation.evaluation import class_table
from ponderv2.tasks.task import EvaluationResult

NAMES = ["wall", "floor", "chair", "board"]


def areas(rng: torch.Generator, n: int = 6) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Predictions and truths of very different sizes; the last class occurs in one area only."""
    sizes = [20 * (i + 1) ** 2 for i in range(n)]
    truths = [torch.randint(-1, 4 if i == 2 else 3, (size,), generator=rng) for i, size in enumerate(sizes)]
    return [(torch.randint(0, 4, truth.shape, generator=rng), truth) for truth in truths]


def result(number: int, predicted: torch.Tensor, truth: torch.Tensor) -> EvaluationResult:
    confusion = confusion_matrix(predicted, truth, 4)
    return EvaluationResult(
        kind="segmentation",
        checkpoint=Path(f"runs/area{number}"),
        split=f"Area_{number}",
        n_scenes=number,
        metrics=named_metrics(confusion),
        classes=class_table(confusion, NAMES),
    )


def test_pooled_metrics_are_those_of_all_points_at_once(rng: torch.Generator) -> None:
    parts = areas(rng)
    together = pooled([fold_of(result(i + 1, *part)) for i, part in enumerate(parts)])
    predicted, truth = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    for name, value in named_metrics(confusion_matrix(predicted, truth, 4)).items():
        assert together.metrics[name] == pytest.approx(value, abs=1e-9)
    assert together.n_scenes == 21 and len(together.folds) == 6
    rows = class_table(confusion_matrix(predicted, truth, 4), NAMES)
    for own, expected in zip(together.classes, rows, strict=True):
        assert own == pytest.approx(expected, abs=1e-9)


def test_results_that_were_written_pool_like_those_in_memory(rng: torch.Generator, tmp_path: Path) -> None:
    from ponder_cli import console

    results = [result(i + 1, *part) for i, part in enumerate(areas(rng, 3))]
    for one in results:
        console.write_json(one, tmp_path / f"{one.split}.json")
    read = pooled([read_fold(tmp_path / f"{one.split}.json") for one in results])
    assert read.metrics == pooled([fold_of(one) for one in results]).metrics


def test_an_area_that_occurs_twice_and_other_classes_are_refused(rng: torch.Generator) -> None:
    folds = [fold_of(result(1, *part)) for part in areas(rng, 2)]
    with pytest.raises(PresetError, match="'Area_1' was evaluated twice"):
        pooled(folds)
    other = EvaluationResult("segmentation", Path("b"), "Area_2", 1, {}, classes=list(folds[0].classes[:3]))
    with pytest.raises(PresetError, match="other classes"):
        pooled([folds[0], fold_of(other)])


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"classes": [{"class": "a"}], "split": "val"})])
def test_files_that_are_no_results_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(PresetError, match=r"a\.json is not the result"):
        read_fold(tmp_path / "a.json")
