"""Points per second out of S3DIS text: our reader and np.loadtxt, the published way, in one run.

Run: python -m benchmarks.s3dis_reading [--points 1000000] [--repeats 5] [--json FILE]

Damaged text is the same with a control byte in one number of each of `--damaged` lines. np.loadtxt stops
there, which is noted; the published way is a copy repaired by hand, so that its time is that of sound text.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.timing import side_by_side
from ponderv2.datasets.s3dis.room import read_points

FORMS = {"v1.2 (%f)": "%f %f %f %f %f %f\n", "aligned (%.3f, %d)": "%.3f %.3f %.3f %d %d %d\n"}


def room_text(n_points: int, form: str) -> bytes:
    """Points in a room of 30 x 30 x 3 metres, whole millimetres."""
    rng = np.random.default_rng(0)
    coord = rng.uniform((-30, -10, 0), (0, 20, 3), (n_points, 3)).round(3)
    rows = np.concatenate([coord, rng.integers(0, 256, (n_points, 3))], axis=1)
    return "".join(form % tuple(row) for row in rows.tolist()).encode()


def damaged(text: bytes, n_lines: int) -> bytes:
    """The text with a control byte in the last number of evenly spread lines."""
    lines = text.split(b"\n")
    for at in np.linspace(0, len(lines) - 2, n_lines).astype(int):
        lines[at] = lines[at][:-1] + b"\x10" + lines[at][-1:]
    return b"\n".join(lines)


def compare(path: Path, broken: Path, n_points: int, repeats: int) -> dict[str, Any]:
    """Medians and their ratios; both must have read the same numbers."""
    published, ours = np.loadtxt(path), read_points(path)
    assert np.array_equal(published[:, :3], ours.coord) and np.array_equal(published[:, 3:], ours.color)
    repaired = read_points(broken)
    assert np.array_equal(repaired.coord, ours.coord) and repaired.repairs
    try:
        np.loadtxt(broken)
        stopped = ""
    except ValueError as error:
        stopped = str(error).split("\n")[0]
    runs = [lambda: np.loadtxt(path), lambda: read_points(path), lambda: read_points(broken)]
    loadtxt, sound, torn = side_by_side(runs, repeats, clock=time.process_time)
    return {
        "points": n_points,
        "loadtxt_points_per_s": n_points / median(loadtxt),
        "ours_points_per_s": n_points / median(sound),
        "ours_damaged_points_per_s": n_points / median(torn),
        "ratio": median(a / b for a, b in zip(loadtxt, sound, strict=True)),
        "ratio_damaged": median(a / b for a, b in zip(loadtxt, torn, strict=True)),
        "loadtxt_on_damaged_text": stopped,
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--damaged", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, form in FORMS.items():
            path, broken = Path(folder) / "sound.txt", Path(folder) / "damaged.txt"
            text = room_text(options.points, form)
            path.write_bytes(text)
            broken.write_bytes(damaged(text, options.damaged))
            found = compare(path, broken, options.points, options.repeats)
            results[name] = found
            print(
                f"{name:20} np.loadtxt {found['loadtxt_points_per_s'] / 1e6:5.2f} M points/s, "
                f"ours {found['ours_points_per_s'] / 1e6:5.2f} ({found['ratio']:.2f}x), "
                f"with {options.damaged} damaged lines {found['ours_damaged_points_per_s'] / 1e6:5.2f} "
                f"({found['ratio_damaged']:.2f}x); np.loadtxt there: {found['loadtxt_on_damaged_text']}"
            )
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
