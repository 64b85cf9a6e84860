"""The device that a model works on."""

from __future__ import annotations

import torch

from ponderv2.errors import ResourceError


def chosen_device(name: str | torch.device) -> torch.device:
    """auto: a GPU where there is one. Raises ResourceError for a device that does not exist."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if str(name).startswith("cuda") and not torch.cuda.is_available():
        raise ResourceError("this machine has no GPU that torch can use", fix="--device cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ResourceError(f"there is no device called '{name}'", fix="--device auto") from error
