"""Checkpoints as safetensors: weights that nothing can be hidden in, and their settings as JSON text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ponderv2.errors import CheckpointError, ResourceError

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
