"""A checkpoint -> a file for other programs: the published container, or safetensors."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from ponderv2.errors import OutputError
from ponderv2.io.files import write_bytes
from ponderv2.training.checkpoint import FORMAT, FORMAT_VERSION
from ponderv2.training.official_models import DATA, published_names
from ponderv2.training.safetensors_files import ENDING, safetensors_bytes
from ponderv2.training.stored_models import StoredModel, load_stored

Form = Literal["official", "safetensors"]

_KINDS = {
    "PretextModel": "pretext",
    "SegmentationModel": "segmentation",
    "InstancesModel": "instances",
}


@dataclass(frozen=True)
class ExportResult:
    """What was written."""

    out: Path
    format: str
    kind: str
    """pretext | segmentation | instances."""
    entries: int
    parameters: int
    megabytes: float
    notes: list[str] = field(default_factory=list)
    """Where the published code computes something else from these weights."""


def run(checkpoint: Path, out: Path, form: Form | None = None, encoder_only: bool = False) -> ExportResult:
    """Writes the weights of a checkpoint of ours, or of a published one, into `out`.

    Args:
        checkpoint: A file or the folder of a run.
        out: `.pth`, or `.safetensors`.
        form: official: the container and the names of the published files, with `module.` in front.
            safetensors: our names, with the settings, read back by every command. None: by the ending.
        encoder_only: Leave everything but `backbone.*` and `embedding_table.*` away.

    Raises:
        CheckpointError: it cannot be read, or nothing that was published looks like the model.
        OutputError: it cannot be written, or the ending does not fit.
    """
    form = form or ("safetensors" if out.suffix == ENDING else "official")
    if (out.suffix == ENDING) != (form == "safetensors"):
        right = ENDING if form == "safetensors" else ".pth"
        raise OutputError(f"{out} does not end in {right}", fix=f"--out {out.with_suffix(right).name}")
    stored = load_stored(Path(checkpoint))
    kind = _KINDS[type(stored.model).__name__]
    state = stored.model.state_dict()
    config = stored.model.config.model_dump(mode="json")
    notes: list[str] = []
    if encoder_only:
        state = {
            key: value for key, value in state.items() if key.startswith(("backbone.", "embedding_table."))
        }
    if form == "official":
        state = published_names(kind, config, state)
        notes = _differences(config, stored)
        data = _official_bytes(state, stored.step)
    elif encoder_only:
        data = safetensors_bytes(state, None)
    else:
        data = safetensors_bytes(state, _settings(stored, kind, config))
    write_bytes(out, data)
    return ExportResult(
        out=out,
        format=form,
        kind="encoder" if encoder_only else kind,
        entries=len(state),
        parameters=sum(value.numel() for value in state.values() if value.is_floating_point()),
        megabytes=len(data) / 2**20,
        notes=notes,
    )


def _official_bytes(state: dict[str, torch.Tensor], epoch: int) -> bytes:
    """The published container; its optimiser is empty, as another program could not go on with ours."""
    stream = io.BytesIO()
    contents = {
        "epoch": epoch,
        "state_dict": {f"module.{name}": value.clone() for name, value in state.items()},
        "optimizer": {},
        "scheduler": {},
        "scaler": None,
        "best_metric_value": 0.0,
    }
    torch.save(contents, stream)
    return stream.getvalue()


def _settings(stored: StoredModel, kind: str, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "config": {**stored.config, "model": config},
        "classes": dict(stored.classes),
        "step": stored.step,
    }


def _differences(config: dict[str, Any], stored: StoredModel) -> list[str]:
    """Settings that the published code does not have, so that it would compute something else."""
    notes: list[str] = []
    data = stored.config.get("data", {})
    for name, usual in DATA.items():
        value = data.get(name, usual)
        same = value.get("size") == usual["size"] if isinstance(usual, dict) else list(value) == usual  # type: ignore[index]
        if not same:
            notes.append(f"trained with data.{name} {value}; published configurations have {usual}")
    if (config.get("densify") or {}).get("align_with_sampling"):
        notes.append("densify.align_with_sampling: the published code reads its volume elsewhere")
    if (config.get("frame") or {}).get("edge") is not None:
        notes.append("frame.edge: the published code scales every scene to its own longest side")
    return notes
