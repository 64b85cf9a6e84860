"""Code and documents use the nouns of the field: a newcomer greps for the noun.

`python -m tests.test_words` lists the places that do not.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TREES = ("ponderv2", "ponder_cli", "presets", "docs", "tests", "benchmarks", "experiments")
SUFFIXES = {".py", ".md", ".yaml", ".yml", ".toml"}

PHRASES = {
    r"photograph": "image, frame",
    r"\bfilms?\b": "video",
    r"\bshel(f|ves)\b": "cache, checkpoint manager",
    r"\bcrumbs?\b": "small components",
    r"quarantine": "bad scenes, replaced",
    r"\bwhat became of\b": "outcome, result",
    r"\b(is|are|was|were|been) told\b(?! apart)": "is given, is reported",
    r"\b(is|are|was|were|been) heard\b": "receives",
    r"\b(is|was|nothing is|that is) said\b(?! to (be|lie))": "is reported, message",
    r"\bmeans? nothing to\b": "does not apply to",
    r"\bdefects? of ours\b|\bmistakes? of ours\b": "internal error",
    r"\bas they come\b": "in completion order",
    r"\bso many\b": "N",
    r"\bslip of the pen\b": "probably a typo",
    r"\bno more to be had\b": "out of memory",
    r"\bhave no say\b|\bhas no say\b": "are ignored",
    r"\b(goes|went) on\b": "continues",
    r"\bkept from training\b": "held out",
    r"\bclasses of points\b": "semantic segmentation",
    r"\bsingle objects?\b": "instance segmentation",
    r"\bgraphics cards?\b": "GPU",
    r"\bas torch likes\b": "torch default",
    r"\bstands? right\b": "right-aligned",
    r"\bof no lens\b": "intrinsics",
}
"""What is not written, as a pattern, and what is written in its place. Upper and lower case alike."""

ALLOWED = {
    r"\bshel(f|ves)\b": (
        "ponderv2/datasets/scannet/",  # names of classes of ScanNet and ScanNet200
        "ponderv2/datasets/structured3d/",  # names of classes of Structured3D
        "ponderv2/datasets/vocabulary.py",  # names of classes of several data sets
        "ponderv2/synthetic/furniture.py",  # furniture
    ),
}
"""Files in which a phrase has its plain meaning."""

CLASS_NAMES = {
    "Fed": "LoadedBatch",
    "Portion": "MicroBatch",
    "Place": "SampleIndex",
    "Turn": "Step",
    "Cycle": "Schedule",
    "Share": "RankShare",
    "Stepper": "TrainStep",
    "Work": "StepInput",
    "Terms": "LossTerms",
    "Pace": "ScheduleValues",
    "Shelf": "CheckpointManager",
    "Kept": "Retention",
    "Logbook": "RunLogger",
    "Quarantine": "BadScenes",
    "Peers": "Ranks",
    "Seen": "FieldOutput",
    "Looks": "RaySamples",
    "Lit": "ShadingInput",
    "Placed": "TrilinearCorners",
    "Surroundings": "TrilinearCorners",
    "ViewedField": "BakedField",
    "RayPictures": "RenderedRays",
    "DistanceReader": "SdfInference",
    "CellVolume": "SparseVolume",
    "Photograph": "image",
    "Photographs": "images",
    "Lens": "Intrinsics",
    "Piece": "ArchiveMember",
}
"""What no class is called."""

FILE_NAMES = {
    "utils",
    "common",
    "misc",
    "base",
    "shelf",
    "feed",
    "order",
    "portions",
    "stepper",
    "peers",
    "quarantine",
    "logbook",
    "plain_numbers",
    "stored_models",
    "start_weights",
    "reading",
    "surroundings",
    "by_entry",
    "cell_unit",
    "linking",
    "weighted_rows",
    "finetuned",
    "task_model",
    "assemble",
    "kept",
    "recently_used",
    "near_miss",
    "photographs",
    "frame_pictures",
    "pictures",
    "photography",
}
"""What no module of the library is called."""


def texts() -> Iterator[tuple[str, str]]:
    """Path from the top and content of every file with words, this one left out."""
    top = [path for path in ROOT.iterdir() if path.suffix in SUFFIXES and path.name != "CHANGELOG.md"]
    deep = [path for tree in TREES for path in sorted((ROOT / tree).rglob("*")) if path.suffix in SUFFIXES]
    for path in (*sorted(top), *deep):
        if path != Path(__file__):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def places_of(pattern: str) -> list[str]:
    """Where a phrase stands, as FILE:LINE, also where it is broken by the end of a line of text."""
    loose = re.compile(pattern.replace(" ", r"(?:\s|#|\")+"), re.IGNORECASE)
    found = []
    for name, text in texts():
        if name.startswith(ALLOWED.get(pattern, ("\0",))):
            continue
        found += [f"{name}:{text.count(chr(10), 0, hit.start()) + 1}" for hit in loose.finditer(text)]
    return found


@pytest.mark.parametrize("pattern", PHRASES)
def test_the_noun_of_the_field_is_written(pattern: str) -> None:
    assert places_of(pattern) == [], f"write: {PHRASES[pattern]}"


def test_classes_are_called_as_in_the_field() -> None:
    found = [
        f"{name}: {node.name} -> {CLASS_NAMES[node.name]}"
        for name, text in texts()
        if name.endswith(".py")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef) and node.name.lstrip("_") in CLASS_NAMES
    ]
    assert found == []


def test_files_are_named_after_the_thing_in_them() -> None:
    names = [path for tree in ("ponderv2", "ponder_cli") for path in (ROOT / tree).rglob("*.py")]
    assert [str(path.relative_to(ROOT)) for path in names if path.stem in FILE_NAMES] == []


if __name__ == "__main__":
    for phrase, instead in PHRASES.items():
        for place in places_of(phrase):
            print(f"{place}: {phrase} -> {instead}")  # noqa: T201
