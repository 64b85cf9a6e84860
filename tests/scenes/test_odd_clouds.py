"""Odd files that people have, from the makers of `--cases`, against the truth written beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ponderv2.data.scene_folder import open_folder
from ponderv2.io.ply import read_ply
from ponderv2.scenes.point_cloud_files import POINT_FILES, read_cloud_with_notes

Make = Callable[[str], Path]


def clouds(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.suffix in POINT_FILES]


@pytest.mark.parametrize(
    ("start", "n_files", "without"),
    [
        ("16", 16, ()),
        ("19", 10, ("normals", "header_normals", "decimal")),
        ("20", 9, ("padded", "columns")),
        ("21", 1, ()),
        ("35", 4, ()),
    ],
)
def test_points_and_colours_are_those_that_were_written(make_case: Make, start: str, n_files: int, without):
    folder = make_case(start)
    truth = np.load(folder / "truth.npz")
    coord = truth["P"] if "P" in truth else truth["V"]
    paths = clouds(folder)
    assert len(paths) == n_files
    for path in paths:
        read = read_cloud_with_notes(path)
        n = len(read.cloud)
        assert n in (len(coord), len(coord) - 1), path.name
        assert np.abs(read.cloud.coord.numpy() - coord[:n]).max() < 6e-4, path.name
        if not path.name.startswith(without):
            assert np.abs(read.cloud.color.numpy() - truth["C"][:n]).max() < 1.5, path.name
        if "ormal" in path.name or "cloudcompare" in path.name:
            assert np.abs(read.cloud.normal.numpy() - truth["N"]).max() < 1e-5, path.name


def test_faces_beside_texture_coordinates_are_those_of_the_plain_file(make_case: Make):
    folder = make_case("15")
    plain = read_ply(folder / "plain.ply")
    assert len(plain.faces) == 242
    for path in clouds(folder):
        assert np.array_equal(read_ply(path).faces, plain.faces), path.name


def test_tables_with_intensity_and_labels_agree(make_case: Make):
    folder = make_case("18")
    reads = {path.name: read_cloud_with_notes(path).cloud for path in clouds(folder)}
    colored = reads["s3dis_xyzrgbl.npy"]
    assert np.array_equal(reads["recap.pts"].color.numpy(), colored.color.numpy())
    assert "segment" in colored.labels
    for cloud in reads.values():
        assert np.abs(cloud.coord.numpy() - colored.coord.numpy()).max() < 1e-4


def test_labels_of_other_programs_are_those_of_minus_one(make_case: Make):
    folder = make_case("28")
    found = {}
    for name in ("m1", "255", "u8", "m100"):
        labels = open_folder(folder / f"in_{name}").read("a", "train").cloud.labels
        found[name] = [labels[field].numpy() for field in ("segment20", "segment200", "instance")]
        assert all((one[::5] == -1).all() and np.delete(one, np.s_[::5]).min() >= 0 for one in found[name])
