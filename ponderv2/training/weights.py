"""Weights: compared with a model and copied into it, whatever wrapped them; and safetensors files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ponderv2.errors import CheckpointError, Misfit, MismatchError, ResourceError

WRAPPERS = ("module.", "_orig_mod.")
ENCODER_PARTS = ("conv_input.", "down.", "enc.", "up.", "dec.", "final.")


BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "class_embedding")
"""Last part of the names of entries that are no parameters, in published files and in ours."""


@dataclass(frozen=True)
class OtherShape:
    """An entry that file and model both have, with different shapes."""

    name: str
    in_file: tuple[int, ...]
    in_model: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}: file {self.in_file}, model {self.in_model}"


@dataclass(frozen=True)
class MatchReport:
    """Names in the model's spelling, `unexpected` in the file's."""

    matched: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """In the model but not in the file."""
    unexpected: tuple[str, ...] = ()
    """In the file but not in the model."""
    mismatched: tuple[OtherShape, ...] = ()

    def rows(self) -> list[Misfit]:
        """What does not fit, for a table: other shapes first."""
        return [
            *(
                Misfit(one.name, "other shape", f"file {one.in_file}, model {one.in_model}")
                for one in self.mismatched
            ),
            *(Misfit(name, "missing", "missing in the file") for name in self.missing),
            *(Misfit(name, "unexpected", "unexpected in the file") for name in self.unexpected),
        ]

    def summary(self) -> str:
        """One line."""
        wanted = len(self.matched) + len(self.missing) + len(self.mismatched)
        return (
            f"{len(self.matched)} of {wanted} entries loaded, {len(self.missing)} missing, "
            f"{len(self.unexpected)} unexpected, {len(self.mismatched)} of another shape"
        )


def strip_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state without the names that wrappers put in front.

    `module.` of distributed training and `_orig_mod.` of compiled models go. `backbone.backbone.x` and
    `backbone.embedding_table.x` of the wrapped fine-tuned models become `backbone.x` and `embedding_table.x`;
    other keys beside them stay. The entries of a bare encoder get `backbone.` in front.
    """
    plain = {_unwrapped(name): value for name, value in state.items()}
    if any(name.startswith("backbone.backbone.") for name in plain):
        plain = {name.removeprefix("backbone."): value for name, value in plain.items()}
    if any(name.startswith("conv_input.") for name in plain):
        plain = {
            f"backbone.{name}" if name.startswith(ENCODER_PARTS) else name: value
            for name, value in plain.items()
        }
    return plain


def _unwrapped(name: str) -> str:
    while name.startswith(WRAPPERS):
        name = name.partition(".")[2]
    return name


def load_weights(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str = "the checkpoint",
    required_prefixes: Sequence[str] = ("",),
    least_share: float = 0.5,
) -> MatchReport:
    """Copies every entry whose name and shape fit. Nothing is copied when too little fits.

    Of the model's entries under each required prefix at least `least_share` must fit (1.0: all).
    Raises MismatchError: a CheckpointError of one sentence, with a table of what does not fit.
    """
    stored = strip_wrappers(state)
    wanted = model.state_dict()
    report = compare(wanted, stored)
    matched = set(report.matched)
    for prefix in required_prefixes:
        names = [name for name in wanted if name.startswith(prefix)]
        n_matched = sum(name in matched for name in names)
        if not names or n_matched < least_share * len(names):
            message = _refusal(source, prefix, n_matched, len(names), report)
            raise MismatchError(message, report.rows(), fix="give a checkpoint of this very model")
    model.load_state_dict({name: stored[name] for name in report.matched}, strict=False)
    return report


def compare(wanted: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> MatchReport:
    """Which names and shapes agree."""
    shared = [name for name in wanted if name in stored]
    same = [name for name in shared if wanted[name].shape == stored[name].shape]
    other = [name for name in shared if wanted[name].shape != stored[name].shape]
    return MatchReport(
        matched=tuple(same),
        missing=tuple(name for name in wanted if name not in stored),
        unexpected=tuple(name for name in stored if name not in wanted),
        mismatched=tuple(
            OtherShape(name, tuple(stored[name].shape), tuple(wanted[name].shape)) for name in other
        ),
    )


def _refusal(source: str, prefix: str, n_matched: int, n_wanted: int, report: MatchReport) -> str:
    part = f"'{prefix}*'" if prefix else "the model"
    examples = tuple(map(str, report.mismatched[:1])) or tuple(
        f"{name} is missing" for name in report.missing[:1]
    )
    example = f" ({examples[0]})" if examples else ""
    return f"{source} is of another model: {n_matched} of {n_wanted} entries of {part} fit{example}"


def sizes(weights: Mapping[str, Tensor]) -> tuple[int, int]:
    """Numbers in the parameters and in the buffers (running statistics, text embeddings) of a file."""
    buffers = sum(value.numel() for name, value in weights.items() if name.split(".")[-1] in BUFFERS)
    return sum(value.numel() for value in weights.values()) - buffers, buffers


ENDING = ".safetensors"
_INSTALL = "pip install safetensors"


def read_safetensors(path: Path) -> dict[str, Any]:
    """As the dict of a `.pth` file: one of ours where it carries our settings, else the published container.

    Raises CheckpointError: damaged, or not such a file.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ResourceError(f"{path} needs the package safetensors", fix=_INSTALL) from error
    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        settings = json.loads(notes["ponder"]) if "ponder" in notes else None
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged or not safetensors: {str(error)[:200]}") from error
    if not isinstance(settings, dict):
        return {"state_dict": state}
    return {**settings, "model": state}


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters as 16-bit floats; buffers and what is no 32-bit float stay as they are."""
    return {
        name: value.half() if value.dtype == torch.float32 and name.split(".")[-1] not in BUFFERS else value
        for name, value in state.items()
    }


def safetensors_bytes(state: Mapping[str, Tensor], settings: Mapping[str, Any] | None) -> bytes:
    """A file of these weights; with `settings` it is read as one of ours."""
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise ResourceError("the package safetensors is not installed", fix=_INSTALL) from error
    # Tensors that share memory are refused there.
    own = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}
    notes = {"format": "pt"}
    if settings is not None:
        notes["ponder"] = json.dumps(settings, default=str)
    return save(own, notes)
