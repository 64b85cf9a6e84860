"""Networks of timm (PyTorch Image Models): by name with weights of the hub or a file, or from a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from ponderv2.data.config import ImageFeaturesConfig
from ponderv2.errors import PresetError
from ponderv2.image_features.known_teachers import licence_of, training_data_of
from ponderv2.image_features.network import ImageNetwork, InputRules, Provenance, digest_of_weights
from ponderv2.io.model_files import (
    digest_of_model,
    licence_in,
    read_json,
    read_weights,
    weights_in,
)
from ponderv2.io.model_hub import downloading
from ponderv2.io.timm_library import check_timm_name, load_timm

PREFIX = "timm:"
LEAST_SIDE = 320
"""Pixels: networks for images of one object expect less than a room needs."""


def by_name(config: ImageFeaturesConfig) -> ImageNetwork:
    """`timm:NAME` with the file that `weights` names, or with those of the hub.

    Raises:
        ResourceError: timm is not installed, or the weights are not here and the hub cannot be reached.
        PresetError: no such network, or damaged weights.
    """
    name = config.model.removeprefix(PREFIX)
    if config.weights is not None:
        return _built(config, name, read_weights(config.weights.expanduser()), config.weights.expanduser())
    timm = load_timm()
    check_timm_name(timm, name, PREFIX)
    with downloading(name):
        network = _created(timm, name, pretrained=True)
    return _network(config, name, network, "the hub, by timm", digest_of_weights(network))


def from_folder(config: ImageFeaturesConfig, folder: Path) -> ImageNetwork:
    """A folder as timm writes it for the hub: config.json with `architecture`, weights in safetensors."""
    settings = read_json(folder / "config.json")
    weights: dict[str, Tensor] = {}
    for path in weights_in(folder):
        weights |= read_weights(path)
    own = settings.get("pretrained_cfg")
    return _built(
        config, str(settings["architecture"]), weights, folder, own if isinstance(own, dict) else {}
    )


def from_file(config: ImageFeaturesConfig, path: Path) -> ImageNetwork:
    """A file of weights that is called like its network: `vit_small_patch14_dinov2.lvd142m.safetensors`."""
    timm = load_timm()
    name = path.name.removesuffix(path.suffix)
    if not timm.is_model(name):
        raise PresetError(
            f"{path} does not say which network its weights are of",
            fix=f"--set data.image_features={{model: timm:NAME, weights: {path}}}",
        )
    return _built(config, name, read_weights(path), path)


def _built(
    config: ImageFeaturesConfig,
    name: str,
    weights: Mapping[str, Tensor],
    place: Path,
    own: Mapping[str, Any] | None = None,
) -> ImageNetwork:
    timm = load_timm()
    check_timm_name(timm, name, PREFIX)
    network = _created(timm, name, pretrained=False)
    if hasattr(timm.models, "clean_state_dict"):
        weights = timm.models.clean_state_dict(dict(weights))
    needed = network.state_dict()
    missing = [key for key in needed if key not in weights]
    if missing:
        raise PresetError(
            f"{place} lacks {len(missing)} of {len(needed)} weights of {name}, first {missing[0]}",
            fix="--set data.image_features.model=timm:NAME names the network that they are of",
        )
    try:
        network.load_state_dict({key: weights[key] for key in needed})
    except RuntimeError as error:
        raise PresetError(f"{place} holds weights of another network than {name}") from error
    return _network(config, name, network, str(place), digest_of_model(place), own)


def _created(timm: ModuleType, name: str, pretrained: bool) -> nn.Module:
    """Without its classifier; transformers that can take images of any size do."""
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, dynamic_img_size=True)
    except TypeError:  # not one of those
        return timm.create_model(name, pretrained=pretrained, num_classes=0)


def _network(
    config: ImageFeaturesConfig,
    name: str,
    network: Any,
    source: str,
    digest: str,
    own: Mapping[str, Any] | None = None,
) -> ImageNetwork:
    if not hasattr(network, "forward_intermediates"):
        raise PresetError(
            f"timm's {name} does not give the outputs of its layers", fix="choose another model"
        )
    known = {**(network.pretrained_cfg or {}), **(own or {})}
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    is_transformer = patch is not None and hasattr(network, "blocks")
    multiple = int(patch[0] if isinstance(patch, tuple) else patch) if is_transformer and patch else 32
    rules = InputRules(
        mean=tuple(known.get("mean", InputRules.mean)),
        std=tuple(known.get("std", InputRules.std)),
        longest_side=max(int(known.get("input_size", (3, LEAST_SIDE))[-1]), LEAST_SIDE),
        multiple=multiple,
    )
    tag = str(known.get("tag") or name.partition(".")[2])
    folder = Path(source)
    licence = licence_in(folder) if folder.is_dir() else None
    provenance = Provenance(
        f"{PREFIX}{name}",
        source,
        digest,
        str(licence or known.get("license") or licence_of(name)),
        training_data_of(name, tag),
    )
    return ImageNetwork(_Intermediates(network, config.layers, is_transformer), rules, provenance, config)


class _Intermediates(nn.Module):
    """Outputs of some layers: of transformers by default the last one, normalised; else the last two."""

    def __init__(self, network: Any, wanted: tuple[int, ...] | None, is_transformer: bool) -> None:
        super().__init__()
        self.network = network
        self.wanted = list(wanted or ((-1,) if is_transformer else (-2, -1)))
        self.norm = is_transformer

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """One map per wanted layer."""
        maps = self.network.forward_intermediates(
            images, indices=self.wanted, norm=self.norm, output_fmt="NCHW", intermediates_only=True
        )
        return tuple(maps)
