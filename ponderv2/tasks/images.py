"""Images for looking at: colour maps and a confusion matrix. PIL and NumPy only."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.reconstruction.images import RgbImage

# Anchors of the perceptually even "viridis", dark to bright.
_SCALE = np.array(
    [
        *([68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141]),
        *([39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]),
    ],
    dtype=np.float64,
)


def color_map(values: Float[Tensor, "row column"], low: float, high: float) -> RgbImage:
    """Dark at `low` to bright at `high`; black where nan."""
    array = values.double().numpy()
    share = np.clip((np.nan_to_num(array) - low) / max(high - low, 1e-9), 0.0, 1.0) * (len(_SCALE) - 1)
    below = np.minimum(share.astype(np.int64), len(_SCALE) - 2)
    part = (share - below)[..., None]
    mixed = _SCALE[below] * (1 - part) + _SCALE[below + 1] * part
    return np.where(np.isnan(array)[..., None], 0, mixed).round().astype(np.uint8)


def confusion_image(confusion: Int[Tensor, "true_class predicted_class"], names: Sequence[str]) -> RgbImage:
    """One cell per pair of classes, bright = a large share of the true class (rows)."""
    from PIL import Image, ImageDraw, ImageFont

    cell, margin = 34, 130
    shares = confusion.double() / confusion.sum(dim=1, keepdim=True).clamp(min=1)
    side = cell * len(names)
    image = Image.new("RGB", (margin + side + 4, margin + side + 4), "white")
    cells = color_map(shares, 0.0, 1.0).repeat(cell, axis=0).repeat(cell, axis=1)
    image.paste(Image.fromarray(cells), (margin, margin))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default()
    for row, name in enumerate(names):
        place = margin + row * cell + cell // 2
        draw.text((margin - 6, place), name[:20], fill="black", font=font, anchor="rm")
        sideways = Image.new("RGB", (margin - 8, 14), "white")
        ImageDraw.Draw(sideways).text((0, 1), name[:20], fill="black", font=font)
        image.paste(sideways.rotate(90, expand=True), (place - 7, 4))
        for column in range(len(names)):
            share = float(shares[row, column])
            if share >= 0.005:
                middle = (margin + column * cell + cell // 2, place)
                ink = "black" if share > 0.6 else "white"
                draw.text(middle, f"{100 * share:.0f}", fill=ink, font=font, anchor="mm")
    draw.text((6, 6), "rows: true\ncolumns: predicted\n% of the true class", fill="black", font=font)
    return np.asarray(image)


def keep_newest(folder: Path, n_steps: int) -> None:
    """Deletes the images `step-N-*.png` of all but the latest steps."""
    steps: dict[int, list[Path]] = {}
    for path in folder.glob("step-*-*.png"):
        number = path.name.split("-")[1]
        if number.isdigit():
            steps.setdefault(int(number), []).append(path)
    for step in sorted(steps)[:-n_steps]:
        for path in steps[step]:
            with contextlib.suppress(OSError):
                path.unlink()
