"""The pretext task: render held-out pixels of a scene from the features of its points."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ponderv2.collectives import process_rank
from ponderv2.data.config import PointDataConfig, PretrainDataConfig
from ponderv2.data.pixel_targets import NO_TARGETS, DepthNormals, WantedTargets
from ponderv2.data.pretrain_dataset import PretrainDataset, validation_frames
from ponderv2.encoder.prompts import Prompts
from ponderv2.errors import PresetError, SceneError
from ponderv2.evaluation.images import mean_metrics
from ponderv2.models.config import SemanticTargetConfig, TextTargetConfig
from ponderv2.models.pretext import PretextModel
from ponderv2.reconstruction.images import write_rgb
from ponderv2.scenes.folders import SceneFolders
from ponderv2.scenes.scene import Scene, evenly_spread
from ponderv2.tasks.images import keep_newest
from ponderv2.tasks.protocols import PROBES
from ponderv2.tasks.published import in_published_order
from ponderv2.tasks.rendering.clusters import find_clusters, read_clusters
from ponderv2.tasks.rendering.config import RenderingConfig
from ponderv2.tasks.rendering.published import LOGIT_SCALE
from ponderv2.tasks.rendering.views import compare_views, evaluate_views, preview
from ponderv2.tasks.task import (
    BestMetric,
    EvaluationRequest,
    EvaluationResult,
    OpenPart,
    Task,
    ValidationRequest,
)
from ponderv2.training.config import TrainingConfig
from ponderv2.training.report import Reporter
from ponderv2.training.run_logger import RunLogger
from ponderv2.training.validation import Validation

SCENES_SAMPLED = 8
"""Scenes of a dataset that are read before training, to report what their views lack."""


class RenderingTask(Task[RenderingConfig]):
    """Judged by the held-out views: by their colours, or by their depth where none has colour."""

    best = BestMetric("psnr")
    renders = True
    model_in_words = "a pre-trained model"
    protocols = PROBES

    def build(self) -> PretextModel:
        """Encoder, volume and renderer."""
        return PretextModel(self.settings)

    def with_data(self, data: PointDataConfig) -> RenderingConfig:
        """The settings with the sizes of the targets, which the settings of the data decide."""
        assert isinstance(data, PretrainDataConfig)
        return self.settings.with_target_sizes(data)

    def with_scenes(self, store: SceneFolders, data: PointDataConfig) -> RenderingConfig:
        """Also with the class names of the scenes, where a text encoder needs names."""
        settings = self.with_data(data)
        semantic = settings.semantic
        if not isinstance(semantic, TextTargetConfig) or semantic.names:
            return settings
        names = store.info.label_set(data.label_field or store.info.label_field).class_names
        if len(names) != semantic.n_classes:
            return settings
        semantic = semantic.model_copy(update={"class_names": names})
        return settings.model_copy(update={"semantic": semantic})

    def datasets(self, part: OpenPart[PretrainDataConfig]) -> tuple[PretrainDataset, PretrainDataset]:
        """Scenes with pixels to render; no file with labels is opened unless the model renders classes.

        A capture of one place has no scenes to spare: its held-out images are validated.

        Raises:
            PresetError: the scenes are of another dataset or have other classes than the model.
            SceneError: the model renders classes and the images of the first scene have none; or no scene has
                a camera that is held out.
        """
        _check_known(part.store.info.name, part.store.root, self.settings.prompts)
        _check_held_out(part)
        semantic = self.settings.semantic
        if semantic is not None:
            _check_targets(semantic, part)
        data = part.part.data
        training = PretrainDataset(
            part.store,
            part.part.train_split,
            data,
            part.seed,
            with_labels=semantic is not None,
            targets=self._wanted(part),
        )
        split = part.val_split or part.part.train_split
        return training, PretrainDataset(part.store, split, data, part.seed)

    def before_training(
        self,
        parts: Sequence[OpenPart[PretrainDataConfig]],
        folder: Path,
        resumed: bool,
        report: Reporter,
    ) -> None:
        """Finds the clusters of the surroundings, where they are a target."""
        targets = self.settings.targets
        if targets is not None and targets.clusters is not None:
            find_clusters(parts, folder, resumed, report)

    def _wanted(self, part: OpenPart[PretrainDataConfig]) -> WantedTargets:
        targets = self.settings.targets
        if targets is None:
            return NO_TARGETS
        normal, clusters = targets.normal, targets.clusters
        return WantedTargets(
            feature_channels=targets.n_outputs.get("image_features", 0),
            normals=None if normal is None else DepthNormals(normal.radius, normal.steepest),
            clustering=None if clusters is None or part.folder is None else read_clusters(part.folder),
        )

    def warnings(self, store: SceneFolders, split: str) -> tuple[str, ...]:
        """Those of the store that do not concern labels."""
        return store.warnings(split)

    def training_warnings(self, part: OpenPart[PretrainDataConfig]) -> tuple[str, ...]:
        """Also how many views have no colour, estimated from a few scenes spread over a dataset.

        A scene that cannot be read is none of them: training replaces it, and reports it.
        """
        warnings = self.warnings(part.store, part.part.train_split)
        names = part.names[:: max(len(part.names) // SCENES_SAMPLED, 1)][:SCENES_SAMPLED]
        scenes: list[Scene] = []
        for name in names:
            with contextlib.suppress(SceneError):
                scenes.append(part.store.read(name, part.part.train_split, labels=False))
        frames = [frame for scene in scenes for frame in scene.frames]
        without = sum(not frame.has_color for frame in frames)
        if not without:
            return warnings
        rest = (
            "there is no colour loss" if without == len(frames) else "the colour loss is that of the others"
        )
        return (
            *warnings,
            f"{part.store.root}: {without} of {len(frames)} views in {len(scenes)} scenes have depth alone: "
            f"they have a depth loss only, and {rest}",
        )

    def validation(
        self, model: PretextModel, data: PretrainDataset, request: ValidationRequest
    ) -> HeldOutViews:
        """Renders the held-out views of a few scenes."""
        return HeldOutViews(model, data, request.prefix, request.folder / "previews", request.training)

    def best_of(self, validations: Sequence[Validation]) -> BestMetric:
        """psnr where any view has a colour, else, and with a LiDAR, the error of depth."""
        has_color = any(isinstance(one, HeldOutViews) and one.has_color for one in validations)
        return self.best if has_color else BestMetric("depth_l1", higher_is_better=False)

    def evaluate(self, request: EvaluationRequest, model: PretextModel, report: Reporter) -> EvaluationResult:
        """Renders the held-out views of the scenes of a split."""
        return evaluate_views(request, model, report)

    def published_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The published names, with the data sets in the published order; nothing of further targets."""
        kept = {name: value for name, value in state.items() if not name.startswith("target_heads.")}
        if self.settings.frame.kind == "range":
            kept.pop(LOGIT_SCALE, None)
        return in_published_order(self.settings.model_dump(mode="json"), kept)

    def published_settings(self) -> dict[str, Any]:
        """Without further targets, of which the published form has no weights."""
        return {**super().published_settings(), "targets": None}

    def differences_from_published(self) -> list[str]:
        """Of the volume: how it is filled and what it spans."""
        notes = []
        frame, lift = self.settings.frame, self.settings.lift
        if frame.kind == "range":
            if not frame.stretch:
                notes.append("frame.stretch: the published code scales every axis to its own range")
            if lift.kind == "densify" and not lift.corners_are_centres:
                notes.append("lift.corners_are_centres: the published code reads its volume half a cell off")
            return notes
        if lift.kind == "densify" and lift.align_with_sampling:
            notes.append("lift.align_with_sampling: the published code reads its volume elsewhere")
        if frame.kind != "cube" or frame.cube_size is not None:
            notes.append("frame: the published code scales every scene to its own longest side")
        return notes


def _check_known(condition: str, root: Path, prompts: Prompts) -> None:
    """Raises PresetError where a model that distinguishes datasets does not know one."""
    if not prompts.knows(condition):
        raise PresetError(
            f"{root} holds scenes of '{condition}', the model knows the datasets: {', '.join(prompts.known)}",
            fix=f"--set model.conditions=[{condition}]",
        )


LOOKED_AT = 8
"""Scenes in which cameras that are held out are looked for; an image may be missing in one of them."""


def _check_held_out(one: OpenPart[PretrainDataConfig]) -> None:
    """Cameras that are held out have to be in the scenes. Raises SceneError."""
    if not one.part.data.held_out_sensors:
        return
    scenes = (
        one.store.read(name, one.part.train_split, labels=False)
        for name in evenly_spread(one.names, LOOKED_AT)
    )
    there = {frame.sensor for scene in scenes for frame in scene.frames}
    unknown = [sensor for sensor in one.part.data.held_out_sensors if sensor not in there]
    if unknown:
        listed = ", ".join(sorted(filter(None, there))) or "none has a name"
        why = f"no camera '{unknown[0]}' to hold out in {one.store.root}"
        raise SceneError(why, fix=f"data.held_out_sensors names some of: {listed}")


def _check_targets(semantic: SemanticTargetConfig, one: OpenPart[PretrainDataConfig]) -> None:
    """The classes to be rendered have to be in the scenes. Raises PresetError and SceneError."""
    store, name = one.store, one.store.info.name
    first = store.read(one.names[0], one.part.train_split)
    if one.part.data.views.lidar is not None:
        field = one.part.data.label_field or store.info.label_field
        if field not in first.cloud.labels:
            raise SceneError(
                f"the points of scene '{first.name}' have no labels '{field}', and the model renders classes",
                fix="--preset outdoor, which needs no labels",
            )
    elif first.frames and all(frame.semantic_path is None for frame in first.frames):
        raise SceneError(
            f"the images of scene '{first.name}' have no labels, and the model renders classes",
            fix="--preset indoor, which needs no labels",
        )
    rows = None
    if isinstance(semantic, TextTargetConfig):
        if isinstance(semantic.valid_index, dict) and name not in semantic.valid_index:
            known = ", ".join(semantic.valid_index)
            raise PresetError(
                f"{store.root} holds scenes of '{name}', the model knows the classes of {known}",
                fix=f"--set model.semantic.valid_index.{name}=[...]",
            )
        rows = semantic.rows_of(name)
    wanted = semantic.n_classes if rows is None else len(rows)
    there = len(store.info.label_set(one.part.data.label_field or store.info.label_field).class_names)
    if there and wanted != there:
        raise PresetError(
            f"the model renders {wanted} classes and {store.root} has {there}",
            fix=f"--set model.semantic.n_classes={there}",
        )


@dataclass(frozen=True)
class HeldOutViews:
    """Renders held-out views of a few scenes of one dataset."""

    model: PretextModel
    data: PretrainDataset
    prefix: str
    """Of the names of the images."""
    folder: Path
    """Of the images."""
    settings: TrainingConfig

    def __len__(self) -> int:
        return min(self.settings.evaluate_scenes, len(self.data))

    @property
    def has_color(self) -> bool:
        """Whether any view that is validated has a colour and a dense depth; else the error of depth decides
        what is best."""
        if self.data.config.views.lidar is not None:
            return False
        scenes = (self.data.scene(number) for number in range(len(self)))
        return any(frame.has_color for scene in scenes for frame in validation_frames(scene))

    def measure(self, number: int, step: int, logger: RunLogger | None) -> list[dict[str, float]]:
        """Metrics of each view. The first view is written as an image."""
        scene = self.data.validation(number)
        rows: list[dict[str, float]] = []
        for view, pair in enumerate(compare_views(self.model, scene, self.settings.evaluate_width)):
            rows.append(pair.metrics())
            if view == 0:
                name = self.prefix + scene.batch.names[0].replace("/", "_")
                image = preview(pair)
                write_rgb(self.folder / f"step-{step:06d}-{name}.png", image)
                if logger:
                    logger.image(f"previews/{name}", image, step)
        return rows

    def metrics(self, results: Sequence[list[dict[str, float]]]) -> dict[str, float]:
        """Means over all views. All processes have written their images: the oldest are deleted."""
        if process_rank() == 0:
            keep_newest(self.folder, self.settings.keep_newest)
        return mean_metrics([row for rows in results for row in rows])
