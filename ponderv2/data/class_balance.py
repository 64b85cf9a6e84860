"""Class-balanced sampling of key frames (CBGS, arXiv 1908.09492): rare objects are seen more often."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch

from ponderv2.errors import SceneError
from ponderv2.randomness import make_generator
from ponderv2.scenes.reader import Reader


def balanced_scenes(
    names: Sequence[str], classes: Mapping[str, Collection[int]], n_classes: int, seed: int
) -> tuple[str, ...]:
    """Names of scenes, with repetitions, so that each class is in as many of the draws made for it.

    With the list of the scenes that hold an object of a class, and n the sum of the lengths of all lists,
    n // n_classes scenes are drawn from each list with replacement. A class that no scene holds gets none,
    scenes without objects are never drawn.

    Args:
        names: Scenes to draw from, each once.
        classes: Classes of the objects of each; those outside 0..n_classes - 1 do not count.
        n_classes: Of the benchmark.
        seed: The same seed draws the same scenes.

    Raises:
        SceneError: no scene holds an object of any class.
    """
    lists = [[name for name in names if one in classes[name]] for one in range(n_classes)]
    total = sum(map(len, lists))
    if not total:
        raise SceneError(
            f"none of {len(names)} scenes has a box of a class", fix="set data.class_balance to false"
        )
    count = max(total // n_classes, 1)
    drawn: list[str] = []
    for number, chosen in enumerate(lists):
        if chosen:
            generator = make_generator("class balance", seed, number)
            drawn += [
                chosen[index] for index in torch.randint(len(chosen), (count,), generator=generator).tolist()
            ]
    return tuple(drawn)


def classes_of_boxes(store: Reader, split: str, names: Sequence[str]) -> dict[str, frozenset[int]]:
    """Classes of the boxes of each scene. Every scene is opened once. Raises SceneError."""
    found: dict[str, frozenset[int]] = {}
    for name in names:
        boxes = store.read(name, split, True, "none").boxes
        found[name] = frozenset() if boxes is None else frozenset(boxes.category.tolist())
    return found
