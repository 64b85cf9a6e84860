"""Checkpoint -> numbers: classes of points, or views that a pre-trained model renders."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from jaxtyping import Int
from pydantic import ValidationError
from torch import Tensor

from ponderv2.config import StrictConfig
from ponderv2.errors import CheckpointError, SceneError
from ponderv2.evaluation.semantic import segmentation_metrics
from ponderv2.models.finetuned import SegmentationModel
from ponderv2.models.pretext import PretextModel
from ponderv2.scenes.config import PretrainDataConfig, SegmentationDataConfig
from ponderv2.scenes.dataset import PretrainDataset, SegmentationDataset
from ponderv2.scenes.fragments import FOUR_TURNS, PLAIN, TEN_VIEWS, THIRTEEN_VIEWS, TestView
from ponderv2.scenes.storage import SceneStore
from ponderv2.training.stored_models import StoredModel, load_stored
from ponderv2.workflows.class_metrics import confusion_of_scenes
from ponderv2.workflows.previews import confusion_picture, preview, write_png
from ponderv2.workflows.report import Reporter, SilentReporter
from ponderv2.workflows.scene_fields import chosen_device
from ponderv2.workflows.scene_folders import open_scenes
from ponderv2.workflows.view_metrics import compare_views, mean_metrics

Config = TypeVar("Config", bound=StrictConfig)

TestTime = Literal["one", "fragments", "4", "10", "13"]
"""one: one pass over each scene. fragments: every point is seen once. 4, 10, 13: and from so many sides."""

_VIEWS: dict[str, tuple[TestView, ...]] = {
    "one": (),
    "fragments": PLAIN,
    "4": FOUR_TURNS,
    "10": TEN_VIEWS,
    "13": THIRTEEN_VIEWS,
}


@dataclass(frozen=True)
class EvaluationResult:
    """Numbers of a model on one split."""

    kind: str
    """pretext | segmentation."""
    checkpoint: Path
    split: str
    n_scenes: int
    metrics: dict[str, float]
    """segmentation: miou, macc, allacc, 0..1. pretext: psnr (decibel), ssim, depth_l1, depth_median (m)."""
    classes: list[dict[str, Any]] = field(default_factory=list)
    """Per class: name, iou, accuracy and number of true points."""
    views: list[dict[str, Any]] = field(default_factory=list)
    """Per rendered view: scene, frame and metrics."""
    pictures: list[Path] = field(default_factory=list)


def run(
    checkpoint: Path,
    *,
    scenes: Path | None = None,
    split: str = "val",
    out: Path | None = None,
    test_time: TestTime = "one",
    width: int = 96,
    device: str = "auto",
    report: Reporter | None = None,
) -> EvaluationResult:
    """Measures a checkpoint on the scenes of a split; `scenes` replaces the folder it was trained on.

    Pictures go into `out` (by default beside the checkpoints of the run): a confusion matrix, or rendered
    views of at most `width` pixels beside the photographs.

    Raises:
        CheckpointError: it cannot be read, or is a published one and says nothing of its data.
        SceneError: no scenes in the split, none with labels, or classes that the model does not know.
        ResourceError: there is no such device.
    """
    report = report or SilentReporter()
    stored = load_stored(Path(checkpoint))
    stored.model.to(chosen_device(device))
    if "data" not in stored.config:
        raise CheckpointError(
            f"{checkpoint} does not say how its data is prepared",
            fix="ponder finetune --from it, then ponder eval",
        )
    store = open_scenes(scenes, stored.path, Path(str(stored.config.get("scenes", "data/rooms"))))
    names = store.scene_names(split)
    if not names:
        raise SceneError(f"{store.root} has no scenes in '{split}'", fix=f"--split {store.info.splits[0]}")
    folder = out or _run_folder(stored.path) / f"evaluation-{split}"
    if isinstance(stored.model, SegmentationModel):
        return _segmentation(stored, store, split, folder, _VIEWS[test_time], report)
    return _rendering(stored, store, split, folder, width, report)


def _segmentation(
    stored: StoredModel,
    store: SceneStore,
    split: str,
    folder: Path,
    views: tuple[TestView, ...],
    report: Reporter,
) -> EvaluationResult:
    model = stored.model
    assert isinstance(model, SegmentationModel)
    data = SegmentationDataset(store, split, _settings(stored, SegmentationDataConfig, budget={}))
    _check_classes(model, data)
    indices = report.track(range(len(data)), f"segmenting {split}", len(data))
    confusion = confusion_of_scenes(model, data, indices, views).cpu()
    metrics = segmentation_metrics(confusion, skip_absent=True)
    names = _class_names(stored, len(confusion))
    picture = write_png(folder / "confusion.png", confusion_picture(confusion, names))
    return EvaluationResult(
        kind="segmentation",
        checkpoint=stored.path,
        split=split,
        n_scenes=len(data),
        metrics={
            "miou": metrics.mean_iou,
            "macc": metrics.mean_accuracy,
            "allacc": metrics.overall_accuracy,
        },
        classes=_class_table(confusion, names),
        pictures=[picture],
    )


def _rendering(
    stored: StoredModel, store: SceneStore, split: str, folder: Path, width: int, report: Reporter
) -> EvaluationResult:
    model = stored.model
    assert isinstance(model, PretextModel)
    data = PretrainDataset(store, split, _settings(stored, PretrainDataConfig))
    rows: list[dict[str, Any]] = []
    metrics: list[dict[str, float]] = []
    pictures: list[Path] = []
    for index in report.track(range(len(data)), f"rendering {split}", len(data)):
        scene = data.validation(index)
        name = scene.batch.names[0]
        for pair in compare_views(model, scene, width):
            metrics.append(pair.metrics())
            rows.append({"scene": name, "frame": pair.name, **metrics[-1]})
            target = folder / f"{name.replace('/', '_')}-{pair.name}.png"
            pictures.append(write_png(target, preview(pair)))
    return EvaluationResult(
        kind="pretext",
        checkpoint=stored.path,
        split=split,
        n_scenes=len(data),
        metrics=mean_metrics(metrics),
        views=rows,
        pictures=pictures,
    )


def _class_table(
    confusion: Int[Tensor, "true_class predicted_class"], names: list[str]
) -> list[dict[str, Any]]:
    metrics = segmentation_metrics(confusion, skip_absent=True)
    counts = confusion.sum(dim=1).tolist()
    return [
        {"class": name, "iou": iou, "accuracy": accuracy, "points": count}
        for name, iou, accuracy, count in zip(
            names, metrics.iou.tolist(), metrics.accuracy.tolist(), counts, strict=True
        )
    ]


def _class_names(stored: StoredModel, n_classes: int) -> list[str]:
    names = [str(name) for name in stored.classes.get("names", [])]
    return names if len(names) == n_classes else [f"class {number}" for number in range(n_classes)]


def _check_classes(model: SegmentationModel, data: SegmentationDataset) -> None:
    """Raises SceneError where the first scene has classes that the model does not know."""
    largest = int(data.labelled_scene(0).cloud.labels[data.label_field].max())
    if largest >= model.n_classes:
        raise SceneError(
            f"scene '{data.names[0]}' of {data.store.root} has class {largest}, "
            f"the model knows 0 to {model.n_classes - 1}",
            fix="--data DIR with scenes of the classes that the model was trained on",
        )


def _settings(stored: StoredModel, kind: type[Config], **changes: Any) -> Config:
    """How the data was prepared in training. Raises CheckpointError: another version wrote the file."""
    try:
        return kind.model_validate({**stored.config["data"], **changes})
    except (ValidationError, TypeError) as error:
        raise CheckpointError(
            f"{stored.path} has settings of data that this program does not know",
            fix="use the version of the program that wrote it",
        ) from error


def _run_folder(checkpoint: Path) -> Path:
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
