"""PonderV2's images of ScanNet: rgbd/SCENE/{color,depth,pose,intrinsic,label}, skip.lst, SPLIT.json."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from numpy import ndarray

from ponderv2.datasets.camera_text import read_matrix, read_pose
from ponderv2.datasets.scannet.scannet20 import CLASS_OF_NYU40
from ponderv2.errors import SceneError
from ponderv2.geometry.cameras import Camera
from ponderv2.io.disk_cache import cached
from ponderv2.io.files import digest_of_files
from ponderv2.io.images import StoredImages, decode_color, image_size, read_integers
from ponderv2.io.text import read_text
from ponderv2.scenes.origin import Origin, near_pose
from ponderv2.scenes.reader import FrameChoice
from ponderv2.scenes.scene import Frame

FOLDER = "rgbd"
SKIPPED = "skip.lst"
FIRST, LAST, STEP = 40, -60, 10
"""Part of a recording that PonderV2 takes; of val and test only each tenth frame is there to begin with."""
_NYU40_TO_CLASS = np.full(65536, -1, np.int64)
_NYU40_TO_CLASS[list(CLASS_OF_NYU40)] = list(CLASS_OF_NYU40.values())


@dataclass(frozen=True)
class RecordingImages(StoredImages):
    """Colour and classes are larger than depth and are brought to its size; classes are NYU40 ids."""

    def color(self, path: Path, size: tuple[int, int]) -> UInt8[ndarray, "row column 3"]:
        """RGB 0..255, resized."""
        from PIL import Image

        try:
            color = decode_color(path.read_bytes(), str(path), at_least=size)
        except OSError as error:
            raise SceneError(f"cannot read {path}: {error.strerror or error}") from error
        if (color.shape[1], color.shape[0]) == size:
            return color
        return np.asarray(Image.fromarray(color).resize(size, Image.Resampling.BILINEAR))

    def depth(self, path: Path, size: tuple[int, int]) -> Float32[ndarray, "row column"]:
        """Millimetres; 0 = no measurement."""
        depth = read_integers(path)
        return np.where(depth < 65535, depth, 0).astype(np.float32)

    def semantic(self, path: Path, size: tuple[int, int]) -> Int64[ndarray, "row column"]:
        """One of the 20 classes, of the pixel that is nearest."""
        values = read_integers(path)
        row, column = (
            np.floor((np.arange(wanted) + 0.5) * there / wanted).astype(np.int64)
            for wanted, there in zip((size[1], size[0]), values.shape, strict=True)
        )
        return _NYU40_TO_CLASS[values[row[:, None], column]]


def has_recording(root: Path, scene: str) -> bool:
    """Whether there are images of a scene."""
    return (root / FOLDER / scene / "color").is_dir() and (root / FOLDER / scene / "depth").is_dir()


def read_recording(
    root: Path, split: str, scene: str, choice: FrameChoice, origin: Origin = (0.0, 0.0, 0.0)
) -> tuple[tuple[Frame, ...], tuple[str, ...]]:
    """The frames that are chosen and can be used, found by their ids, and what was left out.

    Chosen are all, or those that `SPLIT.json` lists for the scene; of these none that `skip.lst` names.
    `origin`: metres, subtracted from the positions of the cameras.
    """
    if not has_recording(root, scene):
        return (), ()
    folder = root / FOLDER / scene
    files = _FrameFiles.of(folder)
    found = cached("recordings", files.content(), lambda: _index(files))
    row_of = {int(one): row for row, one in enumerate(found["ids"])}
    chosen, notes = _chosen(root, split, scene, choice, list(row_of))
    intrinsics = torch.from_numpy(found["K"]).float()
    names = found["names"]
    width, height = image_size(folder / "depth" / str(names[0, 1])) if len(names) else (0, 0)
    images = RecordingImages()
    frames = []
    for one in chosen:
        near = near_pose(found["camera_to_world"][row_of[one]], np.array(origin))
        pose = torch.from_numpy(np.linalg.inv(near)).float()
        color, depth, label = (str(name) for name in names[row_of[one]])
        frames.append(
            Frame(
                id=str(one),
                camera=Camera(intrinsics, pose, width, height),
                depth_scale=0.001,
                color_path=folder / "color" / color,
                depth_path=folder / "depth" / depth,
                semantic_path=folder / "label" / label if label else None,
                images=images,
            )
        )
    return tuple(frames), (*found["notes"].tolist(), *notes)


def _chosen(
    root: Path, split: str, scene: str, choice: FrameChoice, there: list[int]
) -> tuple[list[int], list[str]]:
    notes: list[str] = []
    listed = _listed(root / f"{split}.json").get(scene)
    skipped = _skip_list(root / SKIPPED).get(scene, frozenset())
    if listed is not None:
        known = set(there)
        absent = [one for one in listed if one not in known]
        if absent:
            notes.append(f"{len(absent)} frames of {split}.json are not there: {absent[0]}")
        there = [one for one in listed if one in known]
    elif choice == "published":
        thinned = there[::10] if split in ("val", "test") else there
        there = thinned[FIRST:LAST:STEP] or there
    taken = [one for one in there if one not in skipped]
    if len(taken) < len(there):
        notes.append(f"{len(there) - len(taken)} frames left out that {SKIPPED} names")
    return taken, notes


@dataclass(frozen=True)
class _FrameFiles:
    """What the index of a recording follows from: names of images by their number, poses, intrinsics."""

    colors: dict[int, str]
    depths: dict[int, str]
    labels: dict[int, str]
    poses: dict[int, Path]
    """Of the frames with colour and depth."""
    intrinsics: Path

    @staticmethod
    def of(folder: Path) -> _FrameFiles:
        """Lists the folders; reads nothing."""
        colors, depths, labels = (_numbered(folder / name) for name in ("color", "depth", "label"))
        listed = _numbered(folder / "pose", (".txt",))
        both = sorted(colors.keys() & depths.keys())
        poses = {one: folder / "pose" / listed.get(one, f"{Path(colors[one]).stem}.txt") for one in both}
        return _FrameFiles(colors, depths, labels, poses, folder / "intrinsic" / "intrinsic_depth.txt")

    def content(self) -> str:
        """Digest of the names of images and of every byte of poses and intrinsics."""
        names = json.dumps([sorted(one.items()) for one in (self.colors, self.depths, self.labels)])
        files = [*self.poses.values(), self.intrinsics]
        return digest_of_files(((path.name, path) for path in files), names)


def _index(files: _FrameFiles) -> dict[str, ndarray]:
    """Ids, poses and file names of all frames with colour, depth and a finite pose."""
    colors, depths, labels = files.colors, files.depths, files.labels
    intrinsics = read_matrix(files.intrinsics, (4, 4), (3, 3))[:3, :3]
    ids, poses, bad = [], [], []
    for one, path in files.poses.items():
        pose = read_pose(path)
        if np.isfinite(pose).all() and abs(np.linalg.det(pose[:3, :3])) > 1e-6:
            ids.append(one)
            poses.append(pose)
        else:
            bad.append(one)
    notes = [f"{len(bad)} frames left out whose pose is missing or not finite: {bad[0]}"] if bad else []
    unpaired = colors.keys() ^ depths.keys()
    if unpaired:
        notes.append(f"{len(unpaired)} frames left out with colour or depth alone: {min(unpaired)}")
    return {
        "ids": np.array(ids, np.int64),
        "names": np.array([(colors[one], depths[one], labels.get(one, "")) for one in ids], np.str_).reshape(
            -1, 3
        ),
        "K": intrinsics,
        "camera_to_world": np.array(poses, np.float64).reshape(-1, 4, 4),
        "notes": np.array(notes, np.str_),
    }


def _numbered(folder: Path, endings: tuple[str, ...] = (".jpg", ".jpeg", ".png")) -> dict[int, str]:
    """File names by the number that they are. Raises SceneError where two files have one number."""
    if not folder.is_dir():
        return {}
    found: dict[int, str] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in endings and path.stem.isdigit() and len(path.stem) < 16:
            twin = found.setdefault(int(path.stem), path.name)
            if twin != path.name:
                raise SceneError(
                    f"{folder} has two files of one frame: {twin} and {path.name}", fix="remove one of them"
                )
    return found


def _skip_list(path: Path) -> Mapping[str, frozenset[int]]:
    """Frames per scene that are not to be used; empty where there is no such list."""
    return _parsed_skip_list(path, digest_of_files([("", path)])) if path.is_file() else {}


def _listed(path: Path) -> Mapping[str, tuple[int, ...]]:
    """Frames per scene that are to be used; empty where there is no such list."""
    return _parsed_frame_list(path, digest_of_files([("", path)])) if path.is_file() else {}


@functools.lru_cache(maxsize=4)
def _parsed_skip_list(path: Path, content: str) -> Mapping[str, frozenset[int]]:
    found: dict[str, set[int]] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.split()
        if words and (len(words) != 2 or not re.fullmatch(r"[0-9]{1,15}", words[1])):
            raise SceneError(
                f"{path}, line {number}: expected a scene and a frame number", fix="mend the line"
            )
        if words:
            found.setdefault(words[0], set()).add(int(words[1]))
    return {scene: frozenset(frames) for scene, frames in found.items()}


@functools.lru_cache(maxsize=4)
def _parsed_frame_list(path: Path, content: str) -> Mapping[str, tuple[int, ...]]:
    found: dict[str, list[int]] = {}
    try:
        for entry in json.loads(read_text(path)):
            found.setdefault(str(entry["scene"]), []).append(int(entry["frame"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise SceneError(
            f"{path} is not a list of {{scene, frame}} ({error})", fix="delete it: all frames are used then"
        ) from error
    return {scene: tuple(frames) for scene, frames in found.items()}
