"""Tiny drives of KITTI and SemanticKITTI, and what is broken in them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from tests.campaigns.faults.bad_datasets import Files
from tests.campaigns.faults.fault_kinds import (
    Fault,
    data_fault,
    file_faults,
    files_below,
    image,
    scan_faults,
    text_fault,
)

CHECKSUM = ("one byte less",)
"""Of the end of a PNG, which decoders do not miss."""


@cache
def semantickitti() -> Files:
    from tests.datasets.drives.test_kitti import write_sequence

    with tempfile.TemporaryDirectory() as folder:
        write_sequence(Path(folder), 3)
        made = files_below(Path(folder))
    for number in range(3):
        made[f"sequences/08/image_2/{number:06d}.png"] = image((1200, 360), kind="PNG")
    return made


def of_semantickitti(files: Files) -> Iterator[Fault]:
    """Scans, labels, poses, times and calibration of a sequence."""
    folder, last = "sequences/08", "000002"
    yield from file_faults(files, "scan", f"{folder}/velodyne/{last}.bin", silent=("missing",))
    yield from file_faults(files, "earlier scan", f"{folder}/velodyne/000001.bin")
    yield from file_faults(files, "labels", f"{folder}/labels/{last}.label", last)
    yield from file_faults(files, "image", f"{folder}/image_2/{last}.png", "image_2", silent=CHECKSUM)
    yield from file_faults(files, "calibration", f"{folder}/calib.txt", silent=("one byte less",))
    yield from file_faults(files, "poses", f"{folder}/poses.txt", silent=("one byte less",))
    times = ("missing", "one byte less")
    yield from file_faults(files, "times", f"{folder}/times.txt", silent=times)
    yield from scan_faults(files, f"{folder}/velodyne/{last}.bin", 4)
    lines = files[f"{folder}/poses.txt"].splitlines()
    for name, wrong in {
        "nan": b" ".join([b"nan"] * 12), "zeros": b" ".join([b"0"] * 12),
        "beyond": b" ".join([b"1e300"] * 12), "11 numbers": b" ".join([b"1"] * 11), "words": b"a b c",
    }.items():  # fmt: skip
        yield data_fault(
            f"pose of {name}", f"{folder}/poses.txt", b"\n".join([lines[0], wrong, lines[2]]), "pose"
        )
    yield data_fault("poses of another drive", f"{folder}/poses.txt", lines[0], "poses")
    yield data_fault("times out of order", f"{folder}/times.txt", b"0.3\n0.1\n0.2\n", "time")
    yield data_fault("times of nan", f"{folder}/times.txt", b"nan\nnan\nnan\n", "time")
    yield data_fault("too few times", f"{folder}/times.txt", b"0.1\n", "time")
    yield data_fault("image of another size", f"{folder}/image_2/{last}.png", image((300, 90)), "image_2")
    yield from _calibration_faults(f"{folder}/calib.txt", "Tr")


def _calibration_faults(path: str, name: str) -> Iterator[Fault]:
    words = (Path(path).name, "image_2", "P2")
    yield text_fault("no pose of the LiDAR", path, f"{name}:", "X:", *words)
    yield text_fault("no projection", path, "P2:", "X:", *words)
    yield text_fault("projection of 11 numbers", path, "P2: ", "P2: #", *words)
    yield text_fault("projection of nan", path, "P2: 700", "P2: nan", *words)
    yield text_fault("projection of zero", path, "P2: 700 0 600 0 0 700 180", "P2: 0 0 0 0 0 0 0", *words)
    yield text_fault("projection of 1e300", path, "P2: 700", "P2: 1e300", *words)
    yield text_fault("projection of half the size", path, "P2: 700 0 600", "P2: 350 0 300", *words)
    yield text_fault("negative focal length", path, "P2: 700", "P2: -700", *words)


KITTI_LABEL = "Car 0.00 0 -1.58 587.01 173.33 614.12 200.12 1.65 1.67 3.64 -0.65 1.71 16.70 -1.59\n"


def kitti() -> Files:
    rng = np.random.default_rng(0)
    tr = "0 -1 0 0 0 0 -1 -0.08 1 0 0 -0.27"
    rows = [f"P{i}: 700 0 600 0 0 700 180 0 0 0 1 0" for i in range(4)]
    calibration = "\n".join(
        [*rows, "R0_rect: 1 0 0 0 1 0 0 0 1", f"Tr_velo_to_cam: {tr}", f"Tr_imu_to_velo: {tr}"]
    )
    found: Files = {}
    for name in ("000000", "000001"):
        points = np.column_stack([rng.uniform(-20, 20, (80, 3)) * (1, 1, 0.1), np.full(80, 0.5)])
        found[f"training/velodyne/{name}.bin"] = points.astype("<f4").tobytes()
        found[f"training/calib/{name}.txt"] = calibration.encode() + b"\n"
        found[f"training/label_2/{name}.txt"] = KITTI_LABEL.encode()
        found[f"training/image_2/{name}.png"] = image((1200, 360), kind="PNG")
    return found


def of_kitti(files: Files) -> Iterator[Fault]:
    """Scans, labels and calibration of frames."""
    for part, path, silent in (
        ("scan", "velodyne/000000.bin", ("missing",)),
        ("calibration", "calib/000000.txt", ("one byte less",)),
        ("boxes", "label_2/000000.txt", ("missing", "empty", "one byte less")),
    ):
        yield from file_faults(files, part, f"training/{path}", silent=silent)
    yield from file_faults(files, "image", "training/image_2/000000.png", "image_2", silent=CHECKSUM)
    yield from scan_faults(files, "training/velodyne/000000.bin", 4)
    label = "training/label_2/000000.txt"
    yield text_fault("box at nan", label, "-0.65", "nan", "boxes")
    yield text_fault("box at 1e300", label, "-0.65", "1e300", "boxes")
    yield text_fault("box without a size", label, "1.65", "0", "boxes")
    yield text_fault("box with words", label, "1.65", "x")
    yield text_fault("box of 14 numbers", label, " -1.59", "")
    yield text_fault("occlusion of nan", label, "0.00 0 ", "0.00 nan ", "boxes")
    yield text_fault("occlusion beyond", label, "0.00 0 ", "0.00 1e30 ", "boxes")
    yield data_fault("image of another size", "training/image_2/000000.png", image((300, 90)), "image_2")
    yield data_fault(
        "list of names that are not there", "ImageSets/train.txt", b"000777\n", "000777", "no frames"
    )
    yield data_fault(
        "list with one name that is not there", "ImageSets/train.txt", b"000000\n000777\n", "000777"
    )
    yield data_fault("list that is empty", "ImageSets/train.txt", b"", "no frames")
    yield from _calibration_faults("training/calib/000000.txt", "Tr_velo_to_cam")
