"""TUM RGB-D, ETH3D, ICL-NUIM: lists of timestamps, or one list of associated images, and timed poses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy import ndarray

from ponderv2.datasets.frame_names import by_number, numbers_of, some, times_of_names
from ponderv2.datasets.recordings import ImageFile, RawFrame, Recording
from ponderv2.datasets.rgbd.calibration import Calibration, find_calibration
from ponderv2.datasets.rgbd.config import RgbdConfig
from ponderv2.datasets.rgbd.image_folders import files_like, folder_like, list_images, number_or_name
from ponderv2.datasets.rgbd.pairing import Poses, pair_frames
from ponderv2.datasets.rgbd.pose_lists import named_places
from ponderv2.errors import SceneError
from ponderv2.geometry.intrinsics import Intrinsics, pinhole
from ponderv2.geometry.poses import rotation_of_quaternion
from ponderv2.io.depth_images import DEPTH_ENDINGS
from ponderv2.io.images import COLOR_ENDINGS
from ponderv2.io.named_files import NamedFiles
from ponderv2.io.text import read_text

EXPECTS = "rgb.txt and depth.txt (or associations.txt, or depth.txt alone), groundtruth.txt"
COLOR_LISTS = ("rgb.txt", "color.txt")
DEPTH_LISTS = ("depth.txt", "aligned_depth.txt")
ASSOCIATIONS = ("associations.txt", "association.txt", "associated.txt", "associate.txt", "assoc.txt")
POSES = (
    "groundtruth.txt",
    "*.gt.freiburg",
    "CameraTrajectory.txt",
    "KeyFrameTrajectory.txt",
    "trajectory.txt",
)
COLOR_WORDS, DEPTH_WORDS = ("rgb", "color", "colour", "image"), ("depth",)
CAMERAS = {
    "freiburg1": ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "freiburg2": ((520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "freiburg3": ((535.4, 539.2, 320.1, 247.6), (0.0, 0.0, 0.0, 0.0, 0.0)),
}
ICL_NUIM = re.compile(
    r"traj\d?_?frei|living_?room|lr_?kt\d|of_?kt\d|icl|office_?traj|\.gt\.freiburg$", re.IGNORECASE
)
ICL_CAMERA = Intrinsics(pinhole(481.2, -480.0, 319.5, 239.5), (640, 480))
"""As published: y of the camera points up."""
DEFAULT = ((525.0, 525.0, 319.5, 239.5), (0.0, 0.0, 0.0, 0.0, 0.0))


@dataclass(frozen=True)
class _Row:
    """A line of a list."""

    time: str
    """As written: nanoseconds since 1970 have more digits than a float."""
    words: tuple[str, ...]


def matches(path: Path) -> bool:
    """Timed poses and a list of depth images; without lists, their folder beside groundtruth.txt."""
    if not path.is_dir() or _pose_file(path) is None:
        return False
    if _listed(path, DEPTH_LISTS) or _association(path) is not None:
        return True
    return _image_folder(path, DEPTH_WORDS) is not None and bool(files_like(path, POSES[0]))


def read(path: Path, config: RgbdConfig = RgbdConfig()) -> Recording:
    """Depth is registered to colour and has its distortion; 5000 units per metre; the tracker's z is up."""
    poses_file = _pose_file(path)
    if poses_file is None:
        raise SceneError(f"no groundtruth.txt in {path}", fix=f"this layout holds {EXPECTS}")
    notes, repairs = [], []
    color_rows, depth_rows, source = _images(path, notes, repairs)
    poses, how = _poses(poses_file)
    colors = None if color_rows is None else _distinct(color_rows, "colour", repairs)
    depths = _distinct(depth_rows, "depth", repairs)
    if colors == [] or not depths or len(poses.camera_to_world) == 0:
        raise SceneError(f"a list of {path} is empty", fix="download the sequence again")
    names = None if colors is None else [one.time for one in colors]
    pairing = pair_frames(path, names, [one.time for one in depths], poses, config.pairing)
    known, files = find_calibration(path), NamedFiles(path)
    intrinsics, camera_notes = _intrinsics(path, poses_file, known)
    used = [frame.name for frame in pairing.frames]
    ids, times = _ids(used), times_of_names(used)
    frames = tuple(
        RawFrame(
            id_,
            None if colors is None else ImageFile(_image(path, colors[frame.color or 0], COLOR_WORDS, files)),
            ImageFile(_image(path, depths[frame.depth or 0], DEPTH_WORDS, files)),
            frame.camera_to_world,
            known.color or intrinsics,
            intrinsics,
            time=time,
        )
        for id_, frame, time in zip(ids, pairing.frames, times, strict=True)
    )
    paired = pairing.notes if source is None else (source, *pairing.notes[1:])
    return Recording(
        "tum",
        frames,
        known.depth_scale or 1.0 / 5000.0,
        z_is_up=True,
        notes=(*camera_notes, *paired, *how, *notes, *files.rules),
        repairs=(*known.repairs, *repairs, *pairing.repairs),
        unit_declared=known.depth_scale is not None,
    )


def _images(
    path: Path, notes: list[str], repairs: list[str]
) -> tuple[list[_Row] | None, list[_Row], str | None]:
    """Colour rows (None: depth alone), depth rows, and a note where one list pairs them already."""
    color, depth = _listed(path, COLOR_LISTS), _listed(path, DEPTH_LISTS)
    associations = _association(path)
    if associations is not None and (color is None or depth is None):
        both = _associated(_rows(associations), associations)
        return both[0], both[1], f"images paired as {associations.name} says"
    rows = [
        _rows(listed) if listed is not None else _rows_of_folder(path, words, notes, repairs)
        for listed, words in ((color, COLOR_WORDS), (depth, DEPTH_WORDS))
    ]
    if rows[1] is None:
        raise SceneError(f"no list of depth images in {path}", fix=f"this layout holds {EXPECTS}")
    return rows[0], rows[1], None


def _rows_of_folder(
    path: Path, words: tuple[str, ...], notes: list[str], repairs: list[str]
) -> list[_Row] | None:
    """Images without a list: their names are times or frame numbers. None where there is no folder."""
    folder = _image_folder(path, words)
    if folder is None:
        return None
    images = list_images(folder)
    notes += images.notes
    strange = [one.name for one in images.paths if len(numbers_of(one.stem)) != 1]
    if strange:
        repairs.append(f"{len(strange)} images without a time in their name were left out ({some(strange)})")
    return [
        _Row(format(numbers_of(one.stem)[0], "f"), (one.relative_to(path).as_posix(),))
        for one in images.paths
        if len(numbers_of(one.stem)) == 1
    ]


def _associated(rows: list[_Row], path: Path) -> tuple[list[_Row], ...]:
    """`time rgb/x.png time depth/x.png`, or depth first; both get the time of the depth image."""
    whole = [row for row in rows if len(row.words) >= 3]
    if not whole:
        raise SceneError(f"{path} has no lines of two times and two images", fix="write: time rgb time depth")
    first, third = (sum("depth" in row.words[place].lower() for row in whole) for place in (0, 2))
    color, depth = (2, 0) if first > third else (0, 2)
    times = [row.time if depth == 0 else row.words[1] for row in whole]
    return tuple(
        [_Row(time, (row.words[place],)) for time, row in zip(times, whole, strict=True)]
        for place in (color, depth)
    )


def _distinct(rows: Sequence[_Row], what: str, repairs: list[str]) -> list[_Row]:
    """In order of time, without lines that repeat another, and without other images of the same time."""
    kept: dict[str, _Row] = {}
    again, others, nameless = 0, [], 0
    for row in sorted(rows, key=lambda one: by_number(one.time)):
        if not row.words:
            nameless += 1
        elif row.time not in kept:
            kept[row.time] = row
        elif kept[row.time].words[0] == row.words[0]:
            again += 1
        else:
            others.append(row.words[0])
    if again:
        repairs.append(f"{again} repeated lines of {what} images were left out")
    if others:
        repairs.append(
            f"{len(others)} {what} images have the time of another and were left out ({some(others)})"
        )
    if nameless:
        repairs.append(f"{nameless} lines of {what} images name no file and were left out")
    return list(kept.values())


def _rows(path: Path) -> list[_Row]:
    """Lines that are not comments, in their order. A first line of words names columns."""
    rows: list[_Row] = []
    strange: list[str] = []
    for line in read_text(path).splitlines():
        words = line.split("#", 1)[0].replace(",", " ").split()
        if not words:
            continue
        try:
            if np.isfinite(float(words[0])):
                rows.append(_Row(words[0], tuple(words[1:])))
        except ValueError as error:
            strange.append(line)
            if len(strange) > 1 or rows:
                raise _no_time(path, line) from error
    if strange and not rows:
        raise _no_time(path, strange[0])
    return rows


def _no_time(path: Path, line: str) -> SceneError:
    return SceneError(
        f"{path} has a line that does not start with a time: '{line[:60]}'", fix="mend or delete the line"
    )


def _poses(path: Path) -> tuple[Poses, list[str]]:
    """`time tx ty tz qx qy qz qw`, or as a header names the columns. Damaged rows are not-a-number."""
    rows = _rows(path)
    places = named_places(path)
    other_order = places is not None and places[0] == 0 and places != tuple(range(8))
    if places is not None and other_order:
        n_needed = max(places)
        rows = [
            _Row(
                row.time,
                tuple(row.words[one - 1] for one in places[1:]) if len(row.words) >= n_needed else (),
            )
            for row in rows
        ]
    known = [row for row in rows if len(row.words) >= 7]
    if rows and not known:
        raise SceneError(
            f"{path} has {len(rows[0].words) + 1} numbers a line, expected time, translation and quaternion",
            fix="write: time tx ty tz qx qy qz qw",
        )
    matrices = np.stack([_pose(row.words) for row in rows]) if rows else np.zeros((0, 4, 4))
    times = [numbers_of(row.time) for row in rows]
    early = sum(two < one for one, two in pairwise(times))
    notes = [f"poses of {path.name} were put into the order of time"] if early else []
    notes += [f"t and q of {path.name} by the names of its columns"] if other_order else []
    return Poses(matrices, tuple(row.time for row in rows)), notes


def _pose(words: Sequence[str]) -> ndarray:
    pose = np.full((4, 4), np.nan)
    try:
        values = np.array([float(word) for word in words[:7]])
    except ValueError:
        return pose
    if len(values) == 7:
        pose[:3, :3], pose[:3, 3] = rotation_of_quaternion(values[3:]), values[:3]
        pose[3] = 0.0, 0.0, 0.0, 1.0
    return pose


def _intrinsics(path: Path, poses: Path, known: Calibration) -> tuple[Intrinsics, tuple[str, ...]]:
    """The file beside the lists, else the published camera of the sequence."""
    if known.depth is not None:
        return known.depth, known.notes
    whole = path.resolve().name
    for name, (values, distortion) in CAMERAS.items():
        if name in whole or name.replace("freiburg", "fr") in whole:
            return Intrinsics(pinhole(*values), (640, 480), distortion), (f"camera of {name}", *known.notes)
    if ICL_NUIM.search(whole) or ICL_NUIM.search(poses.name):
        return ICL_CAMERA, ("camera of ICL-NUIM", *known.notes)
    note = "camera: the default f=525, c=(319.5, 239.5)"
    return Intrinsics(pinhole(*DEFAULT[0]), (640, 480), DEFAULT[1]), (note, *known.notes)


def _ids(names: list[str]) -> tuple[str, ...]:
    """Times as they are written; frame numbers without leading zeros."""
    plain = tuple(number_or_name(name) if len(name) < 10 else name for name in names)
    return plain if len(set(plain)) == len(plain) else tuple(names)


def _image(path: Path, row: _Row, words: tuple[str, ...], files: NamedFiles) -> Path:
    """The file of a row, whose folder may be left out; where it should be, if it is not there."""
    name = row.words[0]
    folder = _image_folder(path, words)
    endings = DEPTH_ENDINGS if words == DEPTH_WORDS else COLOR_ENDINGS
    found = files.find(name, endings)
    if found is None and folder is not None and "/" not in name.replace("\\", "/"):
        found = files.find(f"{folder.name}/{name}", endings)
    return found or path / name


def _image_folder(path: Path, words: tuple[str, ...]) -> Path | None:
    return folder_like(path, *words)


def _listed(path: Path, names: tuple[str, ...]) -> Path | None:
    return next((found[0] for name in names if (found := files_like(path, name))), None)


def _association(path: Path) -> Path | None:
    """A list that is not empty."""
    return next((one for name in ASSOCIATIONS for one in files_like(path, name) if one.stat().st_size), None)


def _pose_file(path: Path) -> Path | None:
    return _listed(path, POSES)
