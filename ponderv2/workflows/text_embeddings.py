"""Class names -> a file of text embeddings, so that training needs neither the text model nor a network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ponderv2.errors import OutputError
from ponderv2.heads.config import ClipEmbeddingsConfig
from ponderv2.heads.text_embeddings import clip_embeddings, write_embeddings


@dataclass(frozen=True)
class TextResult:
    """What was written."""

    file: Path
    n_names: int
    n_channels: int
    n_templates: int
    most_alike: tuple[str, str]
    """The two names with the most similar embeddings."""
    similarity: float
    """Cosine similarity of these two."""


def run(config: ClipEmbeddingsConfig, names: Sequence[str], out: Path) -> TextResult:
    """Writes one unit row per name, in that order, to a `.safetensors` file.

    Raises:
        PresetError: there is no such model.
        ResourceError: the extra `text` is not installed.
        OutputError: fewer than two names, or the file cannot be written.
    """
    if len(names) < 2 or out.suffix != ".safetensors":
        raise OutputError(
            "at least two names and a file that ends in .safetensors are needed",
            fix=f"--out {out.stem}.safetensors",
        )
    rows = clip_embeddings(config, names)
    try:
        write_embeddings(out, rows, {"model": config.model, "names": json.dumps(list(names))})
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}") from error
    alike = rows @ rows.T
    alike.fill_diagonal_(-1.0)
    first, second = divmod(int(alike.argmax()), len(names))
    return TextResult(
        file=out,
        n_names=len(names),
        n_channels=rows.shape[1],
        n_templates=len(config.templates),
        most_alike=(names[first], names[second]),
        similarity=float(alike[first, second]),
    )
