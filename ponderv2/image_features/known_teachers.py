"""Licence and training data of published networks, by how their names begin."""

from __future__ import annotations

from ponderv2.image_features.network import UNKNOWN

_KNOWN: tuple[tuple[str, str, str], ...] = (
    ("dinov3", "DINOv3 License", "LVD-1689M (images of the web, no labels)"),
    ("dinov2", "Apache-2.0", "LVD-142M (images of the web, no labels)"),
    ("siglip", "Apache-2.0", "WebLI (images of the web with their texts)"),
)
"""Part of the name, licence, training data."""
_TAGS = {
    "in1k": "ImageNet-1k",
    "in12k": "ImageNet-12k",
    "in22k": "ImageNet-22k",
    "lvd142m": "LVD-142M",
    "lvd1689m": "LVD-1689M",
    "laion2b": "LAION-2B",
    "webli": "WebLI",
    "openai": "images of the web with their texts, by OpenAI",
}
"""Parts of the tags by which timm names weights."""


def licence_of(name: str) -> str:
    """Of a model whose name is known; else where to look."""
    return next((licence for part, licence, _ in _KNOWN if part in name.lower()), UNKNOWN)


def training_data_of(name: str, tag: str = "") -> str:
    """As `licence_of`; `tag`: of weights of timm, `lvd142m`, `fb_in22k_ft_in1k`."""
    listed = [data for part, data in _TAGS.items() if part in tag.lower()]
    return next((data for part, _, data in _KNOWN if part in name.lower()), ", ".join(listed) or UNKNOWN)
