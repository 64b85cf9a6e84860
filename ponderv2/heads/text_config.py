"""Settings of text embeddings: what class names are compared with. Never imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from ponderv2.config import StrictConfig
from ponderv2.scenes.labels.vocabulary import TEMPLATES


class OrthogonalEmbeddingsConfig(StrictConfig):
    """Mutually orthogonal directions in place of text: nothing has to be installed."""

    kind: Literal["orthogonal"] = "orthogonal"


class FileEmbeddingsConfig(StrictConfig):
    """Read from a file."""

    kind: Literal["file"] = "file"
    path: Path
    """`.npy` or `.safetensors` [class, channel]; `ponder text-embeddings` writes the latter."""


class ClipEmbeddingsConfig(StrictConfig):
    """Computed by the text half of CLIP, once: then they are read from the user's cache."""

    kind: Literal["clip"] = "clip"
    model: str
    """Folder of a model in the format of `transformers`; or its name on the Hugging Face hub, the only
    case where the network is used. Published: openai/clip-vit-base-patch16."""
    templates: tuple[str, ...] = TEMPLATES
    """Sentences that `{}` leaves a place for the name in; embeddings are averaged over them."""
    cache: Path | None = None
    """Folder of computed embeddings; by default PONDER_CACHE or ~/.cache/ponder."""

    @field_validator("templates")
    @classmethod
    def _have_a_place(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [template for template in templates if template.count("{}") != 1]
        if wrong or not templates:
            raise ValueError(f"a template has one {{}} where the name goes, got {wrong or templates}")
        return templates


def _from_short_form(value: Any) -> Any:
    """`orthogonal` or the path of a file."""
    if value == "orthogonal":
        return {"kind": "orthogonal"}
    return {"kind": "file", "path": value} if isinstance(value, str | Path) else value


EmbeddingsConfig = Annotated[
    Annotated[
        OrthogonalEmbeddingsConfig | FileEmbeddingsConfig | ClipEmbeddingsConfig, Field(discriminator="kind")
    ],
    BeforeValidator(_from_short_form),
]
