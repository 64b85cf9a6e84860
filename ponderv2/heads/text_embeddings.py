"""One unit vector per class name: from a text encoder, from a file, or simply at right angles."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import assert_never

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ponderv2.errors import OutputError, PresetError, ResourceError
from ponderv2.heads.config import (
    ClipEmbeddingsConfig,
    FileEmbeddingsConfig,
    OrthogonalEmbeddingsConfig,
)
from ponderv2.io.arrays import map_array
from ponderv2.io.files import cache_folder, digest_of_files, write_bytes
from ponderv2.torchvision_operators import repair_torchvision


def embedding_rows(
    config: OrthogonalEmbeddingsConfig | FileEmbeddingsConfig | ClipEmbeddingsConfig,
    shape: tuple[int, int],
    names: Sequence[str] | None = None,
) -> Float[Tensor, "class channel"]:
    """One unit row per class.

    Args:
        config: Where the rows come from.
        shape: Classes and channels.
        names: Of the classes; only CLIP needs them.

    Raises:
        PresetError: a file that cannot be read or has another shape; a CLIP model without names to embed, of
            another width, or not there.
        ResourceError: CLIP is to be used and is not installed.
    """
    match config:
        case OrthogonalEmbeddingsConfig():
            return orthogonal_rows(*shape)
        case FileEmbeddingsConfig():
            return _checked(_read(config.path), str(config.path), shape)
        case ClipEmbeddingsConfig():
            if names is None:
                raise PresetError(
                    f"the names of the {shape[0]} classes are not known",
                    fix="--set model.semantic.class_names=[wall,floor,...]",
                )
            return _checked(clip_embeddings(config, names), config.model, shape)
        case _:
            assert_never(config)


def orthogonal_rows(n_classes: int, n_channels: int) -> Float[Tensor, "class channel"]:
    """Unit rows at right angles: the first columns of Q of a seeded random matrix.

    With fewer channels than classes the columns are at right angles instead. The same for the same sizes on
    one version of torch; a checkpoint keeps the rows that it was trained with.
    """
    seeded = torch.Generator().manual_seed(0)
    longer, shorter = max(n_classes, n_channels), min(n_classes, n_channels)
    directions, _ = torch.linalg.qr(torch.randn(longer, shorter, generator=seeded))
    return (directions.T if n_classes <= n_channels else directions).contiguous()


def _read(path: Path) -> Tensor:
    import numpy as np

    try:
        if path.suffix == ".safetensors":
            return read_embeddings(path)
        rows = map_array(path)
        if rows.dtype.kind not in "fiu":
            raise ValueError(f"it holds {rows.dtype}, not numbers")
        return torch.from_numpy(rows.astype(np.float32))
    except (OSError, ValueError) as error:
        raise PresetError(
            f"cannot read class embeddings from {path}: {error}",
            fix="a .npy or .safetensors of [class, channel]",
        ) from error


def _checked(rows: Tensor, source: str, shape: tuple[int, int]) -> Float[Tensor, "class channel"]:
    if tuple(rows.shape) != shape or not torch.isfinite(rows).all():
        raise PresetError(f"{source} holds {tuple(rows.shape)} numbers, expected {shape}, all finite")
    return F.normalize(rows, dim=1)


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
    repair_torchvision()
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
