"""Tokens, names of scenes and files, as nuScenes has them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

VERSION = "v1.0-trainval"
"""Folder of the tables. Scenes have names of its official splits, so that official evaluators find them."""
_VAL = (
    "3 12-18 35-36 38-39 92-110 221 268-278 329-332 344-346 519-524 552-565 625-627 629-630 632-638 770-771 "
    "775 777-778 780-784 794-800 802 904-917 919-931 962-963 966-969 971-972 1059-1073"
)
_TRAIN = (
    "1-2 4-11 19-34 41-76 120-135 138-139 149-152 154-155 157-168 170-185 187-188 190-196 199-200 "
    "202-204 206-214 218-220 222 224-264 283-306 315-318 321 323-324 328 347-386 388-403 405-408 "
    "410-459 461-465 467-469 471-472 474-480 499-502 504-515 517-518 525-539 541-546 566 568 570-578 "
    "580 582-600 639-679 681 683-689 695-698 700-701 703-719 726-728 730-731 733-741 744 746-747 "
    "749-752 757-765 767-769 786-787 789-792 803-806 808-813 815-817 819-822 847-856 858 860-866 "
    "868-873 875-878 880 882-903 945 947 949 952-953 955-961 975-984 988-992 994-1025 1044-1058 "
    "1074-1102 1104-1110 "
)


def _numbers(ranges: str) -> Iterator[int]:
    for word in ranges.split():
        first, _, last = word.partition("-")
        yield from range(int(first), int(last or first) + 1)


SCENE_NAMES: dict[str, tuple[str, ...]] = {
    split: tuple(f"scene-{number:04d}" for number in _numbers(ranges))
    for split, ranges in (("train", _TRAIN), ("val", _VAL))
}
"""Names of the scenes of the official splits, in order."""


def plan(n_scenes: int, val_every: int) -> list[tuple[str, str]]:
    """Split and name of every street. They depend on its number alone, not on how many there are.

    Raises:
        ValueError: an official split has fewer names.
    """
    found, counts = [], {"train": 0, "val": 0}
    for index in range(n_scenes):
        split = "val" if index % val_every == val_every - 1 else "train"
        if counts[split] == len(SCENE_NAMES[split]):
            raise ValueError(f"{split} has {counts[split]} names of scenes, which {n_scenes} scenes exceed")
        found.append((split, SCENE_NAMES[split][counts[split]]))
        counts[split] += 1
    return found


def token(*parts: object) -> str:
    """32 hexadecimal digits that follow from what they stand for."""
    return hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=16).hexdigest()


def file_name(folder: str, log: str, channel: str, timestamp: int) -> str:
    """Of a measurement, below the root of the data: folder is samples or sweeps."""
    ending = "pcd.bin" if channel.startswith("LIDAR") else "jpg"
    return f"{folder}/{channel}/{log}__{channel}__{timestamp}.{ending}"
