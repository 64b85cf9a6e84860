"""Label sets agree with themselves."""

from __future__ import annotations

from ponderv2.scenes.labels import scannet20


def test_scannet20_has_twenty_of_everything() -> None:
    tables = (scannet20.CLASS_NAMES, scannet20.NYU40_IDS, scannet20.COLORS)
    assert all(len(table) == len(set(table)) == 20 for table in tables)


def test_scannet20_ids_are_those_of_their_names() -> None:
    expected = {"wall": 1, "desk": 14, "shower curtain": 28, "bathtub": 36, "otherfurniture": 39}
    for name, nyu40 in expected.items():
        assert scannet20.CLASS_OF_NYU40[nyu40] == scannet20.CLASS_NAMES.index(name)
    assert 13 not in scannet20.CLASS_OF_NYU40 and 40 not in scannet20.CLASS_OF_NYU40
