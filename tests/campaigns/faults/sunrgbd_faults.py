"""A few images of SUN RGB-D in two layouts, and what is broken in them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from tests.campaigns.faults.bad_datasets import Files
from tests.campaigns.faults.fault_kinds import Fault, data_fault, file_faults, image, text_fault
from tests.campaigns.faults.kitti_faults import CHECKSUM
from tests.datasets.sunrgbd import files as sunrgbd

TABLE = "SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat"
LISTS = "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"
FOLDER = "SUNRGBD/kv1/NYUdata/NYU0000"


@cache
def official() -> Files:
    return sunrgbd.official(sunrgbd.images(), ("v1",))


def of_official(files: Files) -> Iterator[Fault]:
    """Tables, images, and values of the first record."""
    yield from file_faults(files, "table", TABLE, TABLE.rpartition("/")[2], "no images of SUN RGB-D")
    yield from file_faults(files, "lists", LISTS)
    # A depth image is named by the table: without it its scene alone fails.
    yield from file_faults(files, "depth", f"{FOLDER}/depth/NYU.png", silent=CHECKSUM)
    yield from file_faults(files, "color", f"{FOLDER}/image/NYU.png", silent=CHECKSUM)
    yield data_fault(
        "depth of another size", f"{FOLDER}/depth/NYU.png", sunrgbd.png(np.ones((9, 9), np.uint16)), "pixels"
    )
    yield data_fault("depth of 8 bits", f"{FOLDER}/depth/NYU.png", image((9, 9)), "NYU.png")
    zero = sunrgbd.png(np.zeros((sunrgbd.HEIGHT, sunrgbd.WIDTH), np.uint16))
    yield data_fault("depth of zero", f"{FOLDER}/depth/NYU.png", zero, "measures nothing")
    for name, edit, word in (
        ("intrinsics of nan", {"K": np.full((3, 3), np.nan)}, "intrinsics"),
        ("intrinsics of zero", {"K": np.zeros((3, 3))}, "intrinsics"),
        ("intrinsics of 4 numbers", {"K": np.eye(2)}, "numbers"),
        ("tilt of nan", {"Rtilt": np.full((3, 3), np.nan)}, "tilt"),
        ("tilt of zero", {"Rtilt": np.zeros((3, 3))}, "tilt"),
        ("mirrored tilt", {"Rtilt": np.diag([1.0, 1.0, -1.0])}, "tilt"),
        ("path that is a number", {"depthpath": 5.0}, "text"),
        ("path outside", {"rgbpath": "SUNRGBD/../../../etc/passwd"}, "no path"),
        ("boxes that are numbers", {"groundtruth3DBB": np.ones((1, 3))}, "field"),
        ("boxes that are text", {"groundtruth3DBB": "none"}, "field"),
        ("empty boxes", {"groundtruth3DBB": np.zeros((0, 0))}, "no boxes"),
    ):
        changed = sunrgbd.official(sunrgbd.images(), ("v1",), **edit)[TABLE]
        yield data_fault(name, TABLE, changed, word)
    other = sunrgbd.official(sunrgbd.images(), ("v2",))["SUNRGBDMeta3DBB_v2.mat"]
    yield data_fault("labels of the other version", TABLE, other, "labels v2")
    yield data_fault("variable of another name", TABLE, sunrgbd.mat(other=np.eye(3)), "SUNRGBDMeta")
    yield data_fault("table of numbers", TABLE, sunrgbd.mat(SUNRGBDMeta=np.eye(3)), "SUNRGBDMeta")
    yield data_fault(
        "lists of numbers", LISTS, sunrgbd.mat(alltrain=np.eye(3), alltest=np.eye(2)), "allsplit"
    )


@cache
def text() -> Files:
    return {name: data for name, data in sunrgbd.text(sunrgbd.images()).items() if "label/" not in name}


def of_text(files: Files) -> Iterator[Fault]:
    """Points, calibration, labels and lists."""
    first = "000001"
    yield from file_faults(files, "points", f"depth/{first}.mat", f"{first}.mat", "not there")
    yield from file_faults(files, "image", f"image/{first}.jpg", silent=CHECKSUM)
    yield from file_faults(files, "calibration", f"calib/{first}.txt", silent=("one byte less",))
    lighter = ("empty", "one byte less")
    yield from file_faults(files, "labels", f"label_v1/{first}.txt", silent=lighter)
    yield from file_faults(
        files,
        "list",
        "train_data_idx.txt",
        "train_data_idx",
        silent=("cut", "missing", "empty", "one byte less"),
    )
    label = f"label_v1/{first}.txt"
    yield text_fault("box at nan", label, "0.400000000", "nan", "boxes")
    yield text_fault("box at 1e300", label, "0.400000000", "1e300", "boxes")
    yield text_fault("box without a size", label, "0.900000000", "0", "boxes")
    yield text_fault("box with words", label, "0.900000000", "x")
    yield text_fault("box of 11 numbers", label, " 0.900000000", "")
    yield text_fault("unknown class", label, "bed", "spaceship", "spaceship")
    yield text_fault("calibration of nan", f"calib/{first}.txt", "35.000000000", "nan", "intrinsics")
    yield text_fault("negative focal length", f"calib/{first}.txt", "35.000000000", "-35", "intrinsics")
    for name, rows in (
        ("points of nan", np.full((5, 6), np.nan)),
        ("no points", np.zeros((0, 6))),
        ("two columns", np.eye(2)),
    ):
        yield data_fault(name, f"depth/{first}.mat", sunrgbd.mat(instance=rows), f"{first}.mat")
    yield data_fault(
        "points of another name", f"depth/{first}.mat", sunrgbd.mat(points=np.eye(6)), "instance"
    )
