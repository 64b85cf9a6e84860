"""The joint vocabulary against the class lists of the benchmarks."""

from __future__ import annotations

import importlib

import pytest

from ponderv2.datasets.scannet import scannet20
from ponderv2.datasets.vocabulary import CLASS_NAMES, PUBLISHED_ROWS, ROWS, TEMPLATES

SPELLINGS = {
    "refridgerator": "refrigerator",
    "otherfurniture": "other furniture",
    "otherstructure": "other structure",
    "otherprop": "other property",
}


def written(name: str) -> str:
    """A benchmark's name as the vocabulary writes it."""
    return SPELLINGS.get(name, name)


def test_rows_of_scannet_have_the_names_of_its_classes() -> None:
    assert [CLASS_NAMES[row] for row in ROWS["ScanNet"]] == [written(n) for n in scannet20.CLASS_NAMES]


@pytest.mark.parametrize(("dataset", "module"), [("S3DIS", "s3dis"), ("Structured3D", "structured3d")])
def test_rows_have_the_names_of_the_classes(dataset: str, module: str) -> None:
    names = importlib.import_module(f"ponderv2.datasets.{module}.classes").CLASS_NAMES
    assert [CLASS_NAMES[row] for row in ROWS[dataset]] == [written(name) for name in names]


def test_the_three_datasets_use_every_name_but_garbagebin() -> None:
    used = {CLASS_NAMES[row] for rows in ROWS.values() for row in rows}
    assert len(set(CLASS_NAMES)) == 36 and set(CLASS_NAMES) - used == {"garbagebin"}


def test_the_published_rows_of_s3dis_are_the_right_ones_sorted() -> None:
    assert PUBLISHED_ROWS["S3DIS"] == tuple(sorted(ROWS["S3DIS"]))
    meets_its_name = [new == old for new, old in zip(ROWS["S3DIS"], PUBLISHED_ROWS["S3DIS"], strict=True)]
    assert sum(meets_its_name) == 2 and meets_its_name[1] and meets_its_name[12]  # floor, clutter
    assert all(PUBLISHED_ROWS[name] == ROWS[name] for name in ("ScanNet", "Structured3D"))


def test_there_are_21_sentences_with_one_place_each() -> None:
    assert len(set(TEMPLATES)) == 21 and all(template.count("{}") == 1 for template in TEMPLATES)
