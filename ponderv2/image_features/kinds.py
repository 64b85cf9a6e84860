"""The networks that features may come from, and the one function that turns settings into a network."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from ponderv2.data.config import ImageFeaturesConfig
from ponderv2.errors import PresetError
from ponderv2.image_features import efficientnet_lite, timm_models, transformers_models
from ponderv2.image_features.network import ImageNetwork
from ponderv2.io.model_files import PICKLED, digest_of_model, read_json
from ponderv2.io.suggestions import similar_path

CHOICES = f"{efficientnet_lite.NAME}, timm:NAME, hf:ORG/NAME (downloaded), or a folder of a model"


def build_network(config: ImageFeaturesConfig) -> ImageNetwork:
    """The network that the settings name, on the CPU.

    Raises:
        PresetError: there is no such network, or its files are damaged.
        ResourceError: a package is not installed, or a download is not possible.
    """
    if config.weights is not None and not config.model.startswith(timm_models.PREFIX):
        raise PresetError(
            "weights name a file for a network of timm", fix="--set data.image_features.model=timm:NAME"
        )
    if config.model == efficientnet_lite.NAME:
        return efficientnet_lite.efficientnet_lite0(config)
    if config.model.startswith(timm_models.PREFIX):
        return timm_models.by_name(config)
    if config.model.startswith(transformers_models.PREFIX):
        return transformers_models.from_hub(config)
    return _from_place(config, Path(config.model).expanduser())


def local_digest(config: ImageFeaturesConfig) -> str | None:
    """Digest of the weights as `Provenance.weights` has it, of files alone.

    None where it takes the network, or where the files are not on this machine.
    """
    if config.model == efficientnet_lite.NAME:
        return efficientnet_lite.digest()
    place = Path(config.model).expanduser() if config.weights is None else config.weights.expanduser()
    try:
        return digest_of_model(place) if place.exists() else None
    except PresetError:
        return None


def _from_place(config: ImageFeaturesConfig, place: Path) -> ImageNetwork:
    if not place.exists():
        return _by_bare_name(config, place)
    if place.is_file():
        return timm_models.from_file(config, place)
    settings = place / "config.json"
    if not settings.is_file():
        raise PresetError(f"no model in {place}: config.json is missing", fix=CHOICES)
    if "architecture" in read_json(settings):
        return timm_models.from_folder(config, place)
    return transformers_models.from_folder(config, place)


def _by_bare_name(config: ImageFeaturesConfig, place: Path) -> ImageNetwork:
    """A network of timm without its prefix; for anything else the error says what was probably meant."""
    name = config.model
    if place.suffix in (*PICKLED, ".safetensors") or name.startswith((".", "/", "~")):
        near = similar_path(place)
        is_model = near is not None and (near.is_file() or (near / "config.json").is_file())
        raise PresetError(f"no model '{name}'", fix=str(near) if is_model else CHOICES)
    if "/" in name:
        fix = f"hf:{name} takes the model of that name from the hub" if name.count("/") == 1 else CHOICES
        raise PresetError(f"no folder '{name}'", fix=fix)
    near = get_close_matches(name, [efficientnet_lite.NAME], n=1)
    if near:
        raise PresetError(f"no image network '{name}'", fix=near[0])
    return timm_models.by_name(config)
