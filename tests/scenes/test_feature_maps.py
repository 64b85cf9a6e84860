"""Feature maps of images: lookup in closed form, and files that are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ponderv2.errors import SceneError
from ponderv2.scenes.feature_maps import FeatureFile, image_digest, sample_feature_map


def cell_centres(n_cells: int, n_pixels: int) -> torch.Tensor:
    return (torch.arange(n_cells) + 0.5) * n_pixels / n_cells - 0.5


@pytest.mark.parametrize(("grid", "size"), [((5, 7), (70, 45)), ((1, 4), (16, 9)), ((30, 40), (40, 30))])
def test_a_linear_map_is_exact_between_the_outermost_centres(
    grid: tuple[int, int], size: tuple[int, int]
) -> None:
    rows, columns = cell_centres(grid[0], size[1]), cell_centres(grid[1], size[0])
    values = torch.stack(
        [
            columns[None, :].expand(grid),
            rows[:, None].expand(grid),
            2.0 * columns[None] - 0.25 * rows[:, None],
        ]
    )
    generator = torch.Generator().manual_seed(0)
    pixel = torch.rand(200, 2, generator=generator) * torch.tensor(size) - 0.5
    x = pixel[:, 0].clamp(columns[0], columns[-1])
    y = pixel[:, 1].clamp(rows[0], rows[-1])

    found = sample_feature_map(values, pixel, size)

    torch.testing.assert_close(found, torch.stack([x, y, 2.0 * x - 0.25 * y], dim=1), rtol=1e-4, atol=1e-4)


def test_the_centre_of_a_cell_has_its_value_and_a_corner_that_of_the_outermost_cell() -> None:
    values = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]).half()
    # 8 x 4 pixels, 2 x 2 cells of 4 x 2 pixels: centres at columns 1.5 and 5.5, rows 0.5 and 2.5.
    pixel = torch.tensor([[1.5, 0.5], [5.5, 2.5], [0.0, 0.0], [7.0, 3.0], [3.5, 1.5]])

    found = sample_feature_map(values, pixel, (8, 4))

    assert found.dtype == torch.float32
    assert found[:, 0].tolist() == [1.0, 4.0, 1.0, 4.0, 2.5]


def test_a_constant_map_is_constant_everywhere() -> None:
    pixel = torch.rand(50, 2) * 100.0
    found = sample_feature_map(torch.full((3, 6, 8), 0.7), pixel, (101, 99))
    torch.testing.assert_close(found, torch.full((50, 3), 0.7))


def test_lookup_agrees_with_torchs_interpolation_at_every_pixel() -> None:
    values = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(1))
    size = (23, 17)
    row, column = torch.meshgrid(torch.arange(17.0), torch.arange(23.0), indexing="ij")
    expected = torch.nn.functional.interpolate(
        values[None], (17, 23), mode="bilinear", align_corners=False, antialias=False
    )[0]

    found = sample_feature_map(values, torch.stack([column, row], dim=-1).reshape(-1, 2), size)

    torch.testing.assert_close(found.T.reshape(4, 17, 23), expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "0.png"
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(path)
    return path


def test_features_come_back_in_single_precision(tmp_path: Path, image: Path) -> None:
    values = torch.randn(6, 2, 3)
    file = FeatureFile(tmp_path / "deep" / "0.safetensors", "abc")
    file.write(values, image_digest(image))
    found = file.read(image)
    assert found.dtype == torch.float32
    assert torch.equal(found, values.half().float())
    assert file.is_usable(image_digest(image))
    assert not file.is_usable("another")


def test_features_of_another_model_or_image_are_refused(tmp_path: Path, image: Path) -> None:
    file = FeatureFile(tmp_path / "0.safetensors", "abc")
    file.write(torch.zeros(2, 2, 2), image_digest(image))
    with pytest.raises(SceneError, match="another model"):
        FeatureFile(file.path, "other").read(image)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(image)
    with pytest.raises(SceneError, match="has changed since") as caught:
        file.read(image)
    assert caught.value.fix is not None and "--image-features" in caught.value.fix


def test_truncated_features_are_named(tmp_path: Path, image: Path) -> None:
    file = FeatureFile(tmp_path / "0.safetensors", "abc")
    file.write(torch.zeros(2, 2, 2), image_digest(image))
    file.path.write_bytes(file.path.read_bytes()[:-3])
    with pytest.raises(SceneError, match=r"0\.safetensors holds no image features"):
        file.read(image)
    assert not file.is_usable(image_digest(image))
