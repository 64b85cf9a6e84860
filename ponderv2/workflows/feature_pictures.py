"""Features as colours to look at: coloured clouds and images, one panel for each encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from ponderv2.errors import OutputError
from ponderv2.evaluation.feature_colors import FeatureAxes, aligned, fit_axes
from ponderv2.io.files import write_bytes
from ponderv2.io.ply import encode_ply
from ponderv2.reconstruction.cloud_images import CloudView, cloud_image, oblique_view
from ponderv2.reconstruction.images import RgbImage, write_rgb
from ponderv2.scenes.point_cloud_files import ReadCloud
from ponderv2.training.report import Reporter
from ponderv2.workflows.cloud_sources import CloudSource, check_folder

IMAGES = (".png", ".jpg", ".jpeg")
PANEL = (480, 400)
"""Width and height of the image of a cloud, pixels."""
CAPTION = 24
"""Height of the line below it."""
AXIS_ROWS = 50_000
"""Rows of features from which the axes are found, of all clouds together."""
_ROWS = 65536


@dataclass(frozen=True)
class Encoded:
    """What one encoder gave: its name, and the file of features of every cloud."""

    name: str
    files: Sequence[Path]


def check_pictures(pca: Path, n_clouds: int) -> None:
    """Raises OutputError, before the work, for a file of another kind or for several clouds in one file."""
    if n_clouds > 1:
        check_folder(pca, "pictures of several clouds go", "--pca DIR")
    elif pca.suffix and pca.suffix.lower() not in (".ply", *IMAGES):
        raise OutputError(f"{pca} is no picture that is written", fix="--pca FILE.ply, FILE.png or a folder")


def write_pictures(
    pca: Path, sources: Sequence[CloudSource], encoders: Sequence[Encoded], report: Reporter
) -> list[Path]:
    """A coloured cloud (PLY) of the first encoder and an image of all of them beside the cloud's own colours.

    `pca` is a file (its ending chooses which of the two) or a folder, which gets both for each cloud. Axes
    and range of the colours of an encoder are the same for all clouds; those of further encoders are ordered
    and signed so that they agree best with the first one. Raises OutputError.
    """
    axes = _axes_of(encoders)
    written: list[Path] = []
    for number, source in enumerate(report.track(sources, "pictures", len(sources))):
        read = source.read()
        colors = [
            np.concatenate([one_axes.colors(rows) for rows in _rows(encoder.files[number])])[read.finite]
            for encoder, one_axes in zip(encoders, axes, strict=True)
        ]
        for path in _targets(pca, source.name):
            if path.suffix == ".ply":
                write_bytes(path, _colored(read, colors[0]))
            else:
                names = [encoder.name for encoder in encoders]
                write_rgb(path, _panels(read, colors, names))
            written.append(path)
    return written


def _targets(pca: Path, name: str) -> list[Path]:
    if pca.suffix:
        return [pca]
    stem = Path(name).with_suffix("") if Path(name).suffix in (".ply", ".pcd", ".npy") else Path(name)
    return [pca / f"{stem}.ply", pca / f"{stem}.png"]


def _axes_of(encoders: Sequence[Encoded]) -> list[FeatureAxes]:
    samples = [_sample(encoder) for encoder in encoders]
    axes = [fit_axes([sample]) for sample in samples]
    known = torch.stack([sample.isfinite().all(dim=1) for sample in samples]).all(dim=0)
    reference = axes[0].components(samples[0][known])
    return [
        axes[0],
        *(aligned(one, sample[known], reference) for one, sample in zip(axes[1:], samples[1:], strict=True)),
    ]


def _sample(encoder: Encoded) -> Float[Tensor, "row channel"]:
    """Evenly spaced rows of every cloud: of the same points for every encoder."""
    share = max(1, AXIS_ROWS // len(encoder.files))
    rows = []
    for file in encoder.files:
        n_rows, read = _open(file)
        rows.append(read(np.arange(0, n_rows, max(1, -(-n_rows // share)))))
    return torch.cat(rows)


def _open(file: Path) -> tuple[int, Callable[[ndarray], Float[Tensor, "row channel"]]]:
    """Number of points in a file of features, and their rows by index; nan where a point has none."""
    if file.suffix == ".npy":
        values = np.load(file, mmap_mode="r")
        return len(values), lambda index: torch.from_numpy(values[index].astype(np.float32))
    with np.load(file) as archive:
        feature, inverse = archive["feature"].astype(np.float32), archive["inverse"]

    def rows(index: ndarray) -> Float[Tensor, "row channel"]:
        found = feature[inverse[index]]
        found[inverse[index] < 0] = np.nan
        return torch.from_numpy(found)

    return len(inverse), rows


def _rows(file: Path) -> Iterator[Float[Tensor, "row channel"]]:
    n_rows, read = _open(file)
    for start in range(0, n_rows, _ROWS):
        yield read(np.arange(start, min(start + _ROWS, n_rows)))


def _colored(read: ReadCloud, color: UInt8[ndarray, "point 3"]) -> bytes:
    """A PLY file of the cloud where it lies in its file, in metres."""
    coord, normal = read.cloud.coord.numpy(), read.cloud.normal
    if any(read.cloud.origin):
        coord = coord.astype(np.float64) + read.cloud.origin
    return encode_ply(coord, None if normal is None else normal.numpy(), colors=color)


def _panels(read: ReadCloud, colors: Sequence[UInt8[ndarray, "point 3"]], names: Sequence[str]) -> RgbImage:
    """The cloud in its own colours, then by further encoders, then by the first."""
    cloud = read.cloud
    coord = cloud.coord.numpy().astype(np.float64)
    normal = None if cloud.normal is None else cloud.normal.numpy().astype(np.float64)
    view = oblique_view(coord, normal, *PANEL)
    panels = [*zip(names[1:], colors[1:], strict=True), (names[0], colors[0])]
    if cloud.color is not None:
        panels = [("colours of the cloud", np.rint(cloud.color.numpy()).astype(np.uint8)), *panels]
    return np.concatenate([_panel(name, coord, color, normal, view) for name, color in panels], axis=1)


def _panel(
    name: str, coord: ndarray, color: UInt8[ndarray, "point 3"], normal: ndarray | None, view: CloudView
) -> RgbImage:
    from PIL import Image, ImageDraw, ImageFont

    width, height = PANEL
    image = Image.new("RGB", (width, height + CAPTION), "white")
    image.paste(Image.fromarray(cloud_image(coord, color, normal, view, width, height)))
    ImageDraw.Draw(image).text(
        (width // 2, height + CAPTION // 2), name, fill="black", font=ImageFont.load_default(14), anchor="mm"
    )
    return np.asarray(image)
