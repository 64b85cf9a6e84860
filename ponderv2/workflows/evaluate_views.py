"""A pre-trained model is measured by the views that it renders of scenes it was not trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ponderv2.data.config import PretrainDataConfig
from ponderv2.data.datasets import PretrainDataset
from ponderv2.errors import SceneError
from ponderv2.models.pretext import PretextModel
from ponderv2.workflows.evaluation_request import EvaluationRequest, EvaluationResult
from ponderv2.workflows.previews import preview, write_png
from ponderv2.workflows.report import Reporter
from ponderv2.workflows.view_metrics import compare_views, mean_metrics


def run(request: EvaluationRequest, model: PretextModel, report: Reporter) -> EvaluationResult:
    """Renders the held-out views of every scene beside their photographs.

    Raises SceneError where a file of predicted classes is asked for: there are none.
    """
    for option, path in (("--submission", request.submission), ("--export", request.export)):
        if path is not None:
            raise SceneError(
                f"{request.stored.path} is a pre-trained encoder and predicts no classes for {option}",
                fix=f"ponder finetune --from {request.stored.path}, then ponder eval",
            )
    if request.tta != "none":
        report.warn("views are rendered once: --tta is for classes of points")
    data = PretrainDataset(request.store, request.split, request.settings(PretrainDataConfig))
    rows: list[dict[str, Any]] = []
    metrics: list[dict[str, float]] = []
    pictures: list[Path] = []
    for index in report.track(range(len(data)), f"rendering {request.split}", len(data)):
        scene = data.validation(index)
        name = scene.batch.names[0]
        for pair in compare_views(model, scene, request.width):
            metrics.append(pair.metrics())
            rows.append({"scene": name, "frame": pair.name, **metrics[-1]})
            target = request.folder / f"{name.replace('/', '_')}-{pair.name}.png"
            pictures.append(write_png(target, preview(pair)))
    return EvaluationResult(
        kind="pretext",
        checkpoint=request.stored.path,
        split=request.split,
        n_scenes=len(data),
        metrics=mean_metrics(metrics),
        views=rows,
        pictures=pictures,
    )
