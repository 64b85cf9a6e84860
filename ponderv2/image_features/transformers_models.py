"""Vision networks of transformers (DINOv2, DINOv3, SigLIP, CLIP, ConvNeXt, ...), from a folder or the hub."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ponderv2.data.config import ImageFeaturesConfig
from ponderv2.errors import PresetError, ResourceError
from ponderv2.image_features.efficientnet_lite import block_numbers
from ponderv2.image_features.known_teachers import licence_of, training_data_of
from ponderv2.image_features.network import ImageNetwork, InputRules, Provenance, digest_of_weights
from ponderv2.io.model_files import digest_of_model, licence_in, read_json, weights_in
from ponderv2.io.model_hub import downloading, endpoint
from ponderv2.torchvision_operators import repair_torchvision

PREFIX = "hf:"
INSTALL = 'pip install "ponder[text]"'
LEAST_SIDE = 320
"""Pixels."""
STRIDE = 32
"""Pixels, to which images for networks without patches are rounded."""


def from_hub(config: ImageFeaturesConfig) -> ImageNetwork:
    """`hf:ORG/NAME`: from the hub's cache on this machine, else downloaded; weights in safetensors alone.

    Raises:
        ResourceError: transformers is not installed; or the model is not here and the hub does not answer.
        PresetError: no such model, or it is no network for images.
    """
    name = config.model.removeprefix(PREFIX)
    library = _library()
    try:
        network = _from_pretrained(library, name, local_files_only=True)
        settings = _hub_settings(library, name, local_files_only=True)
    except (OSError, ValueError):  # not in the cache as a whole
        with downloading(name):
            network = _from_pretrained(library, name, local_files_only=False)
            settings = _hub_settings(library, name, local_files_only=False)
    provenance = Provenance(
        f"{PREFIX}{name}", endpoint(), digest_of_weights(network), licence_of(name), training_data_of(name)
    )
    return _network(config, network, settings, provenance)


def from_folder(config: ImageFeaturesConfig, folder: Path) -> ImageNetwork:
    """A folder as `save_pretrained` writes it. Raises as `from_hub`."""
    library = _library()
    weights_in(folder)
    try:
        network = _from_pretrained(library, str(folder), local_files_only=True)
    except Exception as error:  # whatever truncated or foreign files make the library raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise PresetError(
            f"cannot load the model in {folder}: {reason}", fix="copy the folder again"
        ) from error
    settings = folder / "preprocessor_config.json"
    name = str(getattr(network.config, "_name_or_path", "") or folder.name)
    kind = f"{folder.name} {network.config.model_type} {name}"
    provenance = Provenance(
        folder.name,
        str(folder),
        digest_of_model(folder),
        licence_in(folder) or licence_of(kind),
        training_data_of(kind),
    )
    return _network(config, network, read_json(settings) if settings.is_file() else {}, provenance)


def _hub_settings(library: Any, name: str, local_files_only: bool) -> dict[str, Any]:
    """Mean and standard deviation of the images; empty where the model has no file of them."""
    found = library.utils.cached_file(
        name,
        "preprocessor_config.json",
        local_files_only=local_files_only,
        _raise_exceptions_for_missing_entries=False,
    )
    return read_json(Path(found)) if found else {}


def _library() -> Any:
    repair_torchvision()
    try:
        import transformers  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ResourceError("this network needs the package transformers", fix=INSTALL) from error
    return transformers


def _from_pretrained(library: Any, name: str, local_files_only: bool) -> Any:
    """The model, its weights from safetensors. Never runs code of the model's repository; shows no bars."""
    logging = library.utils.logging
    had_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return library.AutoModel.from_pretrained(
            name, local_files_only=local_files_only, use_safetensors=True, trust_remote_code=False
        )
    finally:
        if had_bars:
            logging.enable_progress_bar()


def _network(
    config: ImageFeaturesConfig, model: Any, settings: dict[str, Any], provenance: Provenance
) -> ImageNetwork:
    tower = getattr(model, "vision_model", model)
    own = getattr(tower, "config", model.config)
    own = getattr(own, "vision_config", own)
    patch = getattr(own, "patch_size", None)
    patch = patch[0] if isinstance(patch, tuple | list) else patch
    has_patches = patch is not None and hasattr(own, "num_attention_heads")
    side = getattr(own, "image_size", LEAST_SIDE)
    side = side[-1] if isinstance(side, tuple | list) else side
    rules = InputRules(
        mean=_three(settings.get("image_mean"), _usual(own.model_type)[0]),
        std=_three(settings.get("image_std"), _usual(own.model_type)[1]),
        longest_side=max(int(side or 0), LEAST_SIDE),
        multiple=int(patch) if has_patches and patch else STRIDE,
    )
    if getattr(tower, "main_input_name", "pixel_values") != "pixel_values":
        raise PresetError(
            f"{provenance.name} is no network for images", fix="choose one of the vision models"
        )
    layers = _HiddenStates(
        tower, config.layers, int(patch) if has_patches and patch else None, provenance.name
    )
    return ImageNetwork(layers, rules, provenance, config)


def _usual(model_type: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of colours where no file says them."""
    half = (0.5, 0.5, 0.5)
    return (half, half) if "siglip" in model_type else (InputRules.mean, InputRules.std)


def _three(values: Any, usual: tuple[float, float, float]) -> tuple[float, float, float]:
    if not isinstance(values, list | tuple) or len(values) != 3:
        return usual
    red, green, blue = (float(one) for one in values)
    return red, green, blue


class _HiddenStates(nn.Module):
    """Outputs of some layers: by default the last one as the network gives it, of pyramids the last two."""

    def __init__(self, tower: Any, wanted: tuple[int, ...] | None, patch: int | None, name: str) -> None:
        super().__init__()
        self.tower, self.wanted, self.patch, self.name = tower, wanted, patch, name
        self.interpolates = "interpolate_pos_encoding" in inspect.signature(tower.forward).parameters

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """One map per wanted layer."""
        more = {"interpolate_pos_encoding": True} if self.interpolates else {}
        output = self.tower(pixel_values=images, output_hidden_states=True, return_dict=True, **more)
        states = list(output.hidden_states[1:])
        if self.patch is None:
            numbers = block_numbers(self.wanted or (-2, -1), len(states), self.name)
            return tuple(states[number] for number in numbers)
        states[-1] = output.last_hidden_state
        numbers = block_numbers(self.wanted or (-1,), len(states), self.name)
        grid = images.shape[2] // self.patch, images.shape[3] // self.patch
        return tuple(_as_map(states[number], grid) for number in numbers)


def _as_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens of patches as a map; those before them (class, registers) are dropped."""
    rows, columns = grid
    if tokens.shape[1] < rows * columns:
        raise ValueError(f"{tokens.shape[1]} tokens for {rows} x {columns} patches")
    patches = tokens[:, tokens.shape[1] - rows * columns :]
    return torch.unflatten(patches, 1, (rows, columns)).permute(0, 3, 1, 2)
