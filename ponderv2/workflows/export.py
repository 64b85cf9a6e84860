"""A checkpoint -> a file for other programs: the published container, or safetensors."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from ponderv2.data.config import PointDataConfig
from ponderv2.encoder.encoder import image_network_of
from ponderv2.errors import CheckpointError, OutputError
from ponderv2.io.files import write_bytes
from ponderv2.tasks.checkpoints import load_model, open_checkpoint, task_of_checkpoint
from ponderv2.tasks.published import ENCODER_PREFIXES, settings_in_published_order
from ponderv2.tasks.published_points import published_data_of
from ponderv2.training.checkpoint import FORMAT, FORMAT_VERSION
from ponderv2.training.open_checkpoint import RECORD, OpenCheckpoint
from ponderv2.training.weights import ENDING, halved, safetensors_bytes, sizes

Form = Literal["official", "safetensors", "timm"]


@dataclass(frozen=True)
class ExportResult:
    """What was written."""

    out: Path
    format: str
    kind: str
    """Of the model, or `encoder`."""
    entries: int
    parameters: int
    """Numbers that training changes or may change."""
    buffers: int
    """Numbers beside them: running statistics, text embeddings."""
    megabytes: float
    digest: str
    """SHA-256 of the file."""
    notes: list[str] = field(default_factory=list)
    """What the checkpoint did not state, and where the published code computes something else."""


def run(
    checkpoint: Path, out: Path, form: Form | None = None, encoder_only: bool = False, half: bool = False
) -> ExportResult:
    """Writes the weights of a checkpoint of ours, or of a published one, into `out`.

    Args:
        checkpoint: A file or the folder of a run.
        out: `.pth`, or `.safetensors`.
        form: official: the container and the names of the published files, with `module.` in front.
            safetensors: our names, with the settings, read back by every command. timm: the 2D network of an
            encoder of images by the names of timm, and nothing else. None: by the ending.
        encoder_only: Export `backbone.*` and `embedding_table.*` only. As safetensors such a file says how
            points are prepared and names neither scenes nor training.
        half: Parameters as 16-bit floats, in safetensors; running statistics stay as they are.

    Raises:
        CheckpointError: it cannot be read, nothing that was published looks like the model, or it has no 2D
            network.
        OutputError: it cannot be written, or the ending does not fit.
    """
    form = form or ("safetensors" if out.suffix == ENDING else "official")
    if form == "timm":
        return _timm_network(checkpoint, out)
    if (out.suffix == ENDING) != (form == "safetensors"):
        right = ENDING if form == "safetensors" else ".pth"
        raise OutputError(f"{out} does not end in {right}", fix=f"--out {out.with_suffix(right).name}")
    if half and form == "official":
        raise OutputError(
            "the published container holds 32-bit floats", fix=f"--out {out.with_suffix(ENDING).name}"
        )
    opened = open_checkpoint(checkpoint)
    task = task_of_checkpoint(opened)
    state = load_model(opened).state_dict()
    config = task.settings.model_dump(mode="json")
    notes = list(opened.notes)
    if encoder_only:
        state = {key: value for key, value in state.items() if key.startswith(ENCODER_PREFIXES)}
    settings = _encoder_settings(config) if encoder_only else config
    if form == "official":
        if task.settings.encoder.needs != "points":
            raise CheckpointError(
                "nothing was published of an encoder of images",
                fix="--format timm, or --out FILE.safetensors",
            )
        written = task.published_weights(state)
        notes += [*_differences_of_data(config, opened), *task.differences_from_published()]
        notes += task.settings.encoder.differences_from_published()
        whole = settings_in_published_order(settings) if encoder_only else task.published_settings()
        data = _official_bytes(written, opened, whole)
    else:
        data = safetensors_bytes(halved(state) if half else state, _settings(opened, settings))
    write_bytes(out, data)
    parameters, buffers = sizes(state)
    return ExportResult(
        out=out,
        format=form,
        kind=settings["kind"],
        entries=len(state),
        parameters=parameters,
        buffers=buffers,
        megabytes=len(data) / 2**20,
        digest=hashlib.sha256(data).hexdigest(),
        notes=notes,
    )


def _timm_network(checkpoint: Path, out: Path) -> ExportResult:
    """A plain state dict that `timm.create_model(NAME, num_classes=0)` loads with `strict=True`."""
    if out.suffix not in (ENDING, ".pth"):
        raise OutputError(
            f"{out} ends in neither .pth nor {ENDING}", fix=f"--out {out.with_suffix(ENDING).name}"
        )
    opened = open_checkpoint(checkpoint)
    model = load_model(opened)
    network = image_network_of(model.backbone)
    if network is None:
        raise CheckpointError(
            f"{checkpoint} has no 2D network", fix="--format timm is for encoders of images"
        )
    name, module = network
    state = {key: value.detach().contiguous().clone() for key, value in module.state_dict().items()}
    if out.suffix == ENDING:
        from safetensors.torch import save

        data = save(state, metadata={"architecture": name, "step": str(opened.step)})
    else:
        stream = io.BytesIO()
        torch.save(state, stream)
        data = stream.getvalue()
    write_bytes(out, data)
    parameters, buffers = sizes(state)
    return ExportResult(
        out=out,
        format="timm",
        kind="encoder",
        entries=len(state),
        parameters=parameters,
        buffers=buffers,
        megabytes=len(data) / 2**20,
        digest=hashlib.sha256(data).hexdigest(),
        notes=[
            f'timm.create_model("{name}", num_classes=0).load_state_dict(STATE, strict=True)',
            *opened.notes,
        ],
    )


def _encoder_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Settings of the encoder alone, in the form of `EncoderOnlyConfig`."""
    kept = ("encoder", "condition", "conditions")
    return {"kind": "encoder", **{name: config[name] for name in kept if config.get(name)}}


def _official_bytes(
    state: dict[str, torch.Tensor], opened: OpenCheckpoint, settings: dict[str, Any]
) -> bytes:
    """The published container; its optimiser is empty, as another program could not continue with ours.

    What that container does not say (voxels, inputs, classes, settings of the model) stands beside it, where
    it does not follow from the rest in the same way again; other programs ignore that entry.
    """
    stream = io.BytesIO()
    contents: dict[str, Any] = {
        "epoch": opened.step,
        "state_dict": {f"module.{name}": value.clone() for name, value in state.items()},
        "optimizer": {},
        "scheduler": {},
        "scaler": None,
        "best_metric_value": 0.0,
    }
    alone = settings["kind"] == "encoder"  # without its head nothing tells its data any more
    if opened.says_its_data or (alone and opened.config.get("data")):
        contents[RECORD] = {
            "kind": settings["kind"],
            "model": settings,
            "data": dict(opened.config.get("data") or {}),
            "classes": dict(opened.classes),
            "notes": list(opened.notes),
        }
    torch.save(contents, stream)
    return stream.getvalue()


def _settings(opened: OpenCheckpoint, settings: dict[str, Any]) -> dict[str, Any]:
    alone = settings["kind"] == "encoder"
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kind": settings["kind"],
        "config": {**({"data": _points(opened)} if alone else opened.config), "model": settings},
        "classes": dict(opened.classes),
        "step": opened.step,
        "notes": list(opened.notes),
    }


def _points(opened: OpenCheckpoint) -> dict[str, Any]:
    """How points are prepared, and the augmentation, which says what may be hidden from the encoder."""
    known = {*PointDataConfig.model_fields, "augment"}
    data = opened.config.get("data") or {}
    return {name: value for name, value in data.items() if name in known}


def _differences_of_data(config: dict[str, Any], opened: OpenCheckpoint) -> list[str]:
    """Settings of the points that no published configuration has."""
    notes: list[str] = []
    data = opened.config.get("data") or {}
    for name, usual in published_data_of(config).items():
        value = data.get(name, usual)
        same = value.get("size") == usual["size"] if isinstance(usual, dict) else list(value) == usual
        if not same:
            notes.append(f"trained with data.{name} {value}; published configurations have {usual}")
    return notes
