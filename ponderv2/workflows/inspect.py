"""What a checkpoint holds, and how its entries fit the model that it is for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import nn

from ponderv2.encoder.kinds import EncoderConfig, build_encoder
from ponderv2.errors import CheckpointError, Misfit
from ponderv2.tasks.checkpoints import open_checkpoint, task_of_settings
from ponderv2.training.open_checkpoint import OpenCheckpoint, Origin
from ponderv2.training.weights import MatchReport, compare, sizes


@dataclass(frozen=True)
class InspectionResult:
    """What names and shapes say, and the match with a model."""

    checkpoint: Path
    written_by: str
    """ponder, or the published code."""
    task: str
    """Kind of the model; of published files also outdoor and classifier; or refined_scene."""
    generation: str
    """Of published pre-training: 2023 or 2024."""
    head: str
    encoder: str
    in_channels: int
    inputs: list[str]
    """What the encoder takes of each point; empty where nothing says it."""
    voxel_size: float | None
    """Metres."""
    datasets: list[str]
    classes: int
    step: int
    """Step, or epoch of published files."""
    digest: str
    """SHA-256 of the file, without the checksum at its end where it has one."""
    megabytes: float
    """Of the file, MiB."""
    entries: int
    parameters: int
    """Numbers that training changes or may change."""
    buffers: int
    """Numbers beside them: running statistics, text embeddings."""
    against: str
    """What the entries are compared with."""
    matched: int = 0
    missing: int = 0
    unexpected: int = 0
    mismatched: int = 0
    differences: list[Misfit] = field(default_factory=list)
    """Everything that does not fit."""
    notes: list[str] = field(default_factory=list)
    """What the file does not say and other commands assume."""


def run(checkpoint: Path, against: Any | None = None, name: str | None = None) -> InspectionResult:
    """Reads a file and compares its entries with the model of `against`, or with the one that fits best.

    Raises CheckpointError: it cannot be read, or holds no encoder of ours.
    """
    opened = open_checkpoint(checkpoint)
    report, compared = _match(opened, against, name)
    config = opened.config
    facts = {} if opened.published is None else opened.published.facts
    model, data = dict(config.get("model") or {}), dict(config.get("data") or {})
    encoder = opened.encoder_settings or {}
    head = dict(model.get("head") or {})
    parameters, buffers = sizes(opened.weights)
    return InspectionResult(
        checkpoint=opened.path,
        written_by=opened.origin.value,
        task="outdoor" if facts.get("task") == "outdoor" else opened.kind,
        generation=facts.get("generation", "none"),
        head=str(facts.get("head", head.get("kind", "none"))),
        encoder=str(encoder.get("kind", "none")),
        in_channels=int(encoder.get("in_channels", 0)),
        inputs=[str(one) for one in data.get("features", ())],
        voxel_size=dict(data.get("voxel") or {}).get("size"),
        datasets=list(model.get("conditions") or encoder.get("conditions") or ()),
        classes=facts.get("classes", len(opened.classes.get("names", ()))),
        step=opened.step,
        digest=opened.digest,
        megabytes=opened.path.stat().st_size / 2**20,
        entries=len(opened.weights),
        parameters=parameters,
        buffers=buffers,
        against=compared,
        matched=len(report.matched),
        missing=len(report.missing),
        unexpected=len(report.unexpected),
        mismatched=len(report.mismatched),
        differences=report.rows(),
        notes=list(opened.notes),
    )


def _match(opened: OpenCheckpoint, against: Any | None, name: str | None) -> tuple[MatchReport, str]:
    """Against a preset, else the whole model of the file's own settings, else its encoder alone."""
    stored, path = opened.our_weights(), opened.path
    model = opened.config.get("model")
    if opened.origin is Origin.REFINED and against is None:
        return MatchReport(), "nothing: a scene that was fitted by itself"
    if against is not None:
        with torch.device("meta"):
            built = task_of_settings(path, against.kind, against.model_dump(mode="json")).build()
        return compare(built.state_dict(), stored), name or "the given settings"
    if model:
        with torch.device("meta"):
            built = task_of_settings(path, opened.kind, model).build()
        return compare(built.state_dict(), stored), f"the {opened.kind} model that it describes"
    if opened.encoder_settings is None:
        raise CheckpointError(f"{path} does not say what its encoder looks like")
    encoder: nn.Module
    with torch.device("meta"):
        encoder = build_encoder(TypeAdapter(EncoderConfig).validate_python(opened.encoder_settings))
    wanted = {f"backbone.{key}": value for key, value in encoder.state_dict().items()}
    kept = {key: value for key, value in opened.weights.items() if key.startswith("backbone.")}
    return compare(wanted, kept), "an encoder alone"
