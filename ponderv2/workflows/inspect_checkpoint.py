"""What a checkpoint holds, and how its entries fit the model that it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from ponderv2.encoder.build import build_encoder
from ponderv2.encoder.config import EncoderConfig
from ponderv2.errors import CheckpointError
from ponderv2.models.config import PretextConfig
from ponderv2.training.checkpoint import checkpoint_file, load_checkpoint, read_archive
from ponderv2.training.official_checkpoints import encoder_settings, is_official, official_state, variant_of
from ponderv2.training.official_models import model_settings, our_names
from ponderv2.training.stored_models import build_model
from ponderv2.training.weights import MatchReport, compare


@dataclass(frozen=True)
class InspectionResult:
    """What names and shapes say, and the match with a model."""

    checkpoint: Path
    written_by: str
    """ponder, or the published code."""
    task: str
    """pretext | segmentation | instances | outdoor | encoder."""
    generation: str
    """Of published pre-training: 2023 or 2024."""
    head: str
    encoder: str
    in_channels: int
    datasets: list[str]
    classes: int
    step: int
    """Step, or epoch of published files."""
    entries: int
    parameters: int
    against: str
    """What the entries are compared with."""
    matched: int = 0
    missing: int = 0
    unexpected: int = 0
    mismatched: int = 0
    differences: list[dict[str, str]] = field(default_factory=list)
    """Everything that does not fit."""


def run(
    checkpoint: Path, against: PretextConfig | Any | None = None, name: str | None = None
) -> InspectionResult:
    """Reads a file and compares its entries with the model of `against`, or with the one that fits best.

    Raises CheckpointError: it cannot be read, or holds no encoder of ours.
    """
    path = checkpoint_file(Path(checkpoint))
    contents = read_archive(path)
    published = is_official(contents)
    state = official_state(contents) if published else load_checkpoint(path).model
    step = contents.get("epoch") if published else contents.get("step")
    facts = _facts(contents, state, published)
    stored = our_names(state) if published else state
    report, compared = _match(path, stored, state, facts, against, name)
    return InspectionResult(
        checkpoint=path,
        written_by="the published code" if published else "ponder",
        step=int(step) if isinstance(step, int | float) else 0,
        entries=len(state),
        parameters=sum(value.numel() for value in state.values() if value.is_floating_point()),
        against=compared,
        matched=len(report.matched),
        missing=len(report.missing),
        unexpected=len(report.unexpected),
        mismatched=len(report.mismatched),
        differences=report.rows(),
        **{key: value for key, value in facts.items() if key != "settings"},
    )


def _facts(contents: Mapping[str, Any], state: Mapping[str, Tensor], published: bool) -> dict[str, Any]:
    if published:
        return _published_facts(state)
    config = contents.get("config", {}).get("model", {})
    encoder = config.get("encoder") or {}
    head = config.get("head") or {}
    return {
        "settings": (contents["kind"], config),
        "task": str(contents["kind"]),
        "generation": "none",
        "head": str(head.get("kind", "none")),
        "encoder": str(encoder.get("kind", "none")),
        "in_channels": int(encoder.get("in_channels", 0)),
        "datasets": list(config.get("conditions") or encoder.get("conditions") or ()),
        "classes": len(contents.get("classes", {}).get("names", ())),
    }


def _published_facts(state: Mapping[str, Tensor]) -> dict[str, Any]:
    variant = variant_of(state)
    try:
        settings = model_settings(state)
    except CheckpointError:  # only its encoder is known
        settings = {"encoder": encoder_settings(state)}
    encoder = settings["encoder"]
    return {
        "settings": (settings.get("kind"), settings),
        "task": "classifier" if variant.pooled else variant.task,
        "generation": variant.generation,
        "head": variant.head,
        "encoder": encoder["kind"],
        "in_channels": variant.in_channels,
        "datasets": list(settings.get("conditions") or encoder.get("conditions") or ()),
        "classes": variant.n_classes,
    }


def _match(
    path: Path,
    stored: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    against: Any | None,
    name: str | None,
) -> tuple[MatchReport, str]:
    """Against a preset, else the whole model of the file's own settings, else its encoder alone."""
    kind, settings = facts["settings"]
    if against is not None:
        with torch.device("meta"):
            model = build_model(path, against.kind, against.model_dump(mode="json"))
        return compare(model.state_dict(), stored), name or "the given settings"
    if kind is not None:
        with torch.device("meta"):
            model = build_model(path, kind, settings)
        return compare(model.state_dict(), stored), f"the {facts['task']} model that it describes"
    with torch.device("meta"):
        encoder: nn.Module = build_encoder(TypeAdapter(EncoderConfig).validate_python(settings["encoder"]))
    wanted = {f"backbone.{key}": value for key, value in encoder.state_dict().items()}
    return compare(wanted, {k: v for k, v in state.items() if k.startswith("backbone.")}), "an encoder alone"
