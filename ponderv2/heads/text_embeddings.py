"""One unit vector per class name: from a text encoder, from a file, or simply at right angles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ponderv2.errors import PresetError
from ponderv2.heads.clip_text import clip_embeddings, read_embeddings
from ponderv2.heads.text_config import (
    ClipEmbeddingsConfig,
    FileEmbeddingsConfig,
    OrthogonalEmbeddingsConfig,
)
from ponderv2.io.arrays import map_array


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
