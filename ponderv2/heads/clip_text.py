"""Class names through the text half of CLIP, kept in a cache. Needs the extra `text`, and no torchvision.

Every sentence is embedded and normalised, the sentences of one name are averaged, the mean is normalised
(CLIP, section 3.1.4). The published code averages over names in place of sentences: its rows mix 21 names.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ponderv2.errors import OutputError, PresetError, ResourceError
from ponderv2.heads.text_config import ClipEmbeddingsConfig
from ponderv2.io.files import cache_folder, digest_of_files, write_bytes

BATCH = 256
"""Sentences that are embedded at once."""
WANTED = "a folder with config.json, weights and tokenizer, or openai/clip-vit-base-patch16"
INSTALL = 'pip install "ponder[text]"'


def clip_embeddings(config: ClipEmbeddingsConfig, names: Sequence[str]) -> Float[Tensor, "class channel"]:
    """One unit row per name: from the cache, else by the model, and then kept in the cache.

    Raises:
        ResourceError: `transformers` or `safetensors` is not installed.
        PresetError: there is no such model, or it cannot be read.
    """
    path = cache_file(config, names)
    if path.is_file():
        return read_embeddings(path)
    embedded = _embed(config.model, sentences(config.templates, names))
    rows = mean_over_templates(embedded, len(config.templates))
    with contextlib.suppress(OutputError):  # without a cache they are computed again the next time
        write_embeddings(path, rows, {"model": config.model, "names": json.dumps(list(names))})
    return rows


def sentences(templates: Sequence[str], names: Sequence[str]) -> list[str]:
    """All sentences of the first name, then of the second, and so on."""
    return [template.format(name) for name in names for template in templates]


def mean_over_templates(
    embedded: Float[Tensor, "sentence channel"], n_templates: int
) -> Float[Tensor, "class channel"]:
    """Unit rows of names from those of their sentences, in the order of `sentences`."""
    unit = F.normalize(embedded.float(), dim=1)
    return F.normalize(unit.reshape(-1, n_templates, unit.shape[1]).mean(dim=1), dim=1)


def cache_file(config: ClipEmbeddingsConfig, names: Sequence[str]) -> Path:
    """Where the rows of these names are kept. The name follows from model, templates and names."""
    parts = [_identity(config.model), list(config.templates), list(names)]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
    return (config.cache or cache_folder()) / "text" / f"{key}.safetensors"


def _identity(model: str) -> str:
    """The name of a model on the hub, or what the files of a folder hold."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return model
    return digest_of_files((path.name, path) for path in sorted(folder.iterdir()) if path.is_file())


@torch.no_grad()
def _embed(model: str, texts: list[str]) -> Float[Tensor, "sentence channel"]:
    """Projected embeddings, not normalised."""
    try:
        from transformers import (  # pyright: ignore[reportMissingImports]
            AutoTokenizer,
            CLIPTextModelWithProjection,
        )
    except ImportError as error:
        raise ResourceError("text embeddings by CLIP need the package transformers", fix=INSTALL) from error
    is_folder = _is_folder(model)
    source = str(Path(model).expanduser()) if is_folder else model
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=is_folder)
        encoder = CLIPTextModelWithProjection.from_pretrained(source, local_files_only=is_folder)
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PresetError(f"no CLIP text model in '{model}': {reason}", fix=WANTED) from error
    encoder = encoder.float().eval()
    rows = []
    for first in range(0, len(texts), BATCH):
        tokens = tokenizer(texts[first : first + BATCH], padding=True, truncation=True, return_tensors="pt")
        rows.append(encoder(**{name: tokens[name] for name in ("input_ids", "attention_mask")}).text_embeds)
    return torch.cat(rows)


def _is_folder(model: str) -> bool:
    """Whether files are meant and not a name on the hub. Raises PresetError where they are missing."""
    folder = Path(model).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise PresetError(f"no CLIP text model in '{model}': config.json is missing", fix=WANTED)
    if not folder.is_dir() and (model.startswith((".", "/", "~")) or model.count("/") != 1):
        raise PresetError(f"no folder '{model}'", fix=WANTED)
    return folder.is_dir()


def read_embeddings(path: Path) -> Float[Tensor, "class channel"]:
    """Rows that `write_embeddings` wrote. Raises PresetError and ResourceError."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ResourceError(f"{path} needs the package safetensors", fix=INSTALL) from error
    try:
        return load_file(str(path))["embeddings"].float()
    except (OSError, SafetensorError, KeyError) as error:
        raise PresetError(
            f"{path} holds no class embeddings ({error})", fix="ponder text-embeddings writes such a file"
        ) from error


def write_embeddings(path: Path, rows: Float[Tensor, "class channel"], notes: Mapping[str, str]) -> None:
    """Writes rows with notes, whole or not at all. Raises OutputError."""
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise ResourceError(f"{path} needs the package safetensors", fix=INSTALL) from error
    write_bytes(path, save({"embeddings": rows.contiguous()}, metadata=dict(notes)))
