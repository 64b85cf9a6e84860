"""Are the cameras of a drive where their calibration puts them? If not: how else would the LiDAR fit them?

The sides of objects in the LiDAR (`silhouettes.py`) are looked up in the images, for the calibration as it is
and turned by a few degrees about the camera: the sum over several key frames has a peak where it is right.
A value is the height of a peak in spreads of the whole map. Cameras as in `geometry/cameras.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from scipy.spatial.transform import Rotation

from ponderv2.checks.silhouettes import changes_across, silhouettes
from ponderv2.scenes.scene import Frame, Scene

ACROSS, UPWARDS = np.arange(-8.0, 8.1, 0.5), np.arange(-4.0, 4.1, 1.0)
"""Degrees by which the calibration is turned about the vertical and horizontal axis of the camera."""
SIMPLER = 0.5
"""By how much an explanation must be better than one before it in the list."""
NEAR = 1.0
"""Degrees that count as no turn: sensors that shake, exposure and scan at different times."""
WIDE = np.arange(-60.0, 60.1, 1.0)
"""The same in search of a camera that is turned by far."""
FEWEST = 40
"""Silhouettes in the images of a camera, below which nothing is concluded about it."""
SOUND = 2.5
"""Height of the peak at the stored calibration from which on nothing else is tried."""
CLEAR, FOUND, LEAD = 4.0, 4.5, 2.0
"""Height of the peak of another explanation, of a turn that is searched for, and the lead over the stored
calibration."""
MAGNIFIED = (0.5, 0.6667, 0.75, 0.8, 0.8333, 1.2, 1.25, 1.3333, 1.5, 2.0)
"""Image sizes that intrinsics may be of, as factors to that of the image."""
TO_OPTICAL = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
"""From x forward, y left, z up to x right, y down, z forward."""
LEAST_DEPTH = 0.5
"""Metres, of points that are looked up."""
UPRIGHT, STANDS = 0.5, 0.9
"""Cosine to the vertical: a camera is mounted somehow upright; an explanation makes it stand."""
OTHER_AXES = "its axes are those of a vehicle (x forward, z up), not of a camera (z forward, y down)"
EXCHANGED = "its images are those of "
INVERTED = "its extrinsics are inverted: from the camera and into the camera are exchanged"
Map = Float64[ndarray, "up across"]


@dataclass(frozen=True)
class CameraFinding:
    """How a camera fits the LiDAR."""

    sensor: str
    silhouettes: int
    """Sides of objects that fall into its images, over all key frames that were looked at."""
    height: float | None
    """Of the peak at the stored calibration, in spreads; None: too little to see."""
    cause: str = ""
    """Another explanation that fits clearly better; empty where none does."""
    best: float | None = None
    """Height under it."""

    @property
    def sound(self) -> bool:
        """Whether the stored calibration is confirmed."""
        return self.height is not None and self.height >= SOUND and not self.cause


@dataclass(frozen=True)
class _View:
    """One image with the silhouettes of its key frame."""

    edges: Float64[ndarray, "edge 3"]
    """In the frame of the scene."""
    image: Float64[ndarray, "row column"]
    frame: Frame

    @property
    def intrinsics(self) -> Float64[ndarray, "3 3"]:
        return self.frame.camera.intrinsics.double().numpy()

    @property
    def pose(self) -> Float64[ndarray, "4 4"]:
        return self.frame.camera.world_to_camera.double().numpy()

    def values(
        self, in_camera: Float64[ndarray, "edge 3"], matrix: Float64[ndarray, "3 3"]
    ) -> tuple[float, int]:
        """Sum and number of what the image shows at the directions, by a matrix from camera to pixel."""
        seen = in_camera @ matrix.T
        seen = seen[seen[:, 2] > LEAST_DEPTH]
        camera, (rows, columns) = self.frame.camera, self.image.shape
        x = (seen[:, 0] / seen[:, 2] + 0.5) * (columns / camera.width)
        y = (seen[:, 1] / seen[:, 2] + 0.5) * (rows / camera.height)
        inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
        found = self.image[y[inside].astype(np.int64), x[inside].astype(np.int64)]
        return float(found.sum()), len(found)


@dataclass
class _Reading:
    """Another understanding of the calibration: poses and intrinsics per view."""

    description: str
    views: list[tuple[_View, Float64[ndarray, "4 4"], Float64[ndarray, "3 3"]]] = field(default_factory=list)

    def heights(self, across: Float64[ndarray, " across"], up: Float64[ndarray, " up"]) -> Map:
        """Peaks over a map of turns, in spreads of the map; not a number where too few are seen."""
        value, _ = self._values(across, up)
        if np.isnan(value).sum() > value.size / 2:
            return np.full_like(value, np.nan)
        return (value - np.nanmean(value)) / max(float(np.nanstd(value)), 1e-9)

    def height(self) -> tuple[float | None, int]:
        """Of the peak without a turn, in spreads of a map around it, and the number of silhouettes."""
        near, count = self._values(ACROSS[np.abs(ACROSS) <= NEAR], UPWARDS[np.abs(UPWARDS) <= NEAR])
        if np.isnan(near).all():
            return None, count
        around, _ = self._values(ACROSS[::2], UPWARDS[::2])
        around = around[(np.abs(UPWARDS[::2, None]) > NEAR) | (np.abs(ACROSS[::2]) > NEAR)]
        if np.isnan(around).sum() > around.size / 2:
            return None, count
        return float((np.nanmax(near) - np.nanmean(around)) / max(np.nanstd(around), 1e-9)), count

    def _values(self, across: Float64[ndarray, " across"], up: Float64[ndarray, " up"]) -> tuple[Map, int]:
        """What the images show at the silhouettes, turned, and the number of silhouettes without a turn."""
        total = np.zeros((len(up), len(across)))
        count = np.zeros_like(total)
        degrees = np.stack([np.tile(across, len(up)), np.repeat(up, len(across))], axis=1)
        turns = Rotation.from_euler("yx", degrees, degrees=True).as_matrix()
        for view, pose, intrinsics in self.views:
            in_camera = view.edges @ pose[:3, :3].T + pose[:3, 3]
            in_camera = in_camera[np.linalg.norm(in_camera, axis=1) > LEAST_DEPTH]
            for index, turn in enumerate(turns):
                one, n_seen = view.values(in_camera, intrinsics @ turn)
                total.flat[index] += one
                count.flat[index] += n_seen
        value = np.where(count >= FEWEST, total / np.sqrt(np.maximum(count, 1.0)), np.nan)
        return value, int(count[len(up) // 2, len(across) // 2])


def check_cameras(scenes: Sequence[Scene]) -> tuple[CameraFinding, ...]:
    """Every camera of key frames of one drive against their points. Raises SceneError for damaged images."""
    views = _views(scenes)
    stored = {name: _as_stored(found).height() for name, found in views.items()}
    weak = {name for name, (height, _) in stored.items() if height is None or height < SOUND}
    causes: dict[str, tuple[str, float]] = {}
    if weak:
        causes = {name: found for name in weak if (found := _explained(name, views, stored, weak))}
    found = []
    for name, (height, count) in stored.items():
        cause, best = causes.get(name, ("", None))
        found.append(CameraFinding(name, count, _rounded(height), cause, _rounded(best)))
    return tuple(found)


def _views(scenes: Iterable[Scene]) -> dict[str, list[_View]]:
    found: dict[str, list[_View]] = {}
    for scene in scenes:
        points = scene.cloud.coord.double().numpy()
        edges = silhouettes(points)
        for frame in scene.frames:
            if frame.has_color and frame.sensor:
                grey = frame.read_color().double().mean(dim=2).numpy()
                found.setdefault(frame.sensor, []).append(_View(edges, changes_across(grey), frame))
    return found


def _as_stored(views: Iterable[_View]) -> _Reading:
    return _Reading("", [(one, one.pose, one.intrinsics) for one in views])


def _explained(
    name: str,
    views: dict[str, list[_View]],
    stored: dict[str, tuple[float | None, int]],
    weak: set[str],
) -> tuple[str, float] | None:
    """The reading under which a camera fits the LiDAR, and the height of its peak."""
    known = stored[name][0]
    least = LEAD + (0.0 if known is None else known)
    best: tuple[str, float] | None = None
    for reading in _readings(name, views, weak):
        height, _ = reading.height()
        if height is not None and height >= max(least, CLEAR if best is None else best[1] + SIMPLER):
            best = reading.description, height
    return best or _search(views[name], max(least, FOUND))


def _readings(name: str, views: dict[str, list[_View]], weak: set[str]) -> Iterator[_Reading]:
    own = views[name]
    for other in sorted(weak - {name}):
        there = {id(view.edges): view for view in views[other]}
        pairs = [(view, there[id(view.edges)]) for view in own if id(view.edges) in there]
        if pairs:
            yield _Reading(
                f"{EXCHANGED}{other}",
                [(view, one.pose, one.intrinsics) for view, one in pairs],
            )
    yield _Reading(OTHER_AXES, [(one, _turned(one.pose, TO_OPTICAL), one.intrinsics) for one in own])
    half_turn = np.diag([-1.0, -1.0, 1.0])
    yield _Reading(
        "its images are upside down", [(one, _turned(one.pose, half_turn), one.intrinsics) for one in own]
    )
    for one in (1, 2, 3):
        turn = np.eye(4)
        turn[:3, :3] = Rotation.from_euler("z", 90 * one, degrees=True).as_matrix()
        yield _Reading(
            f"it is turned by {90 * one if one < 3 else -90} degrees about the vertical axis of the LiDAR: "
            "axes of the vehicle are exchanged",
            [(view, view.pose @ turn, view.intrinsics) for view in own],
        )
    yield _Reading(
        "its images are mirrored left to right",
        [(one, one.pose, _mirror(one.frame.camera.width) @ one.intrinsics) for one in own],
    )
    for factor in MAGNIFIED:
        camera = own[0].frame.camera
        size = f"{round(camera.width / factor)} x {round(camera.height / factor)}"
        yield _Reading(
            f"its intrinsics are those of images of about {size} pixels",
            [(one, one.pose, np.diag([factor, factor, 1.0]) @ one.intrinsics) for one in own],
        )


def _search(views: list[_View], least: float) -> tuple[str, float] | None:
    """A turn about the camera, first by a few degrees, then by many."""
    for across, up in ((ACROSS, UPWARDS), (WIDE, np.arange(-2.0, 2.1, 1.0))):
        found = _as_stored(views).heights(across, up)
        if np.isnan(found).all() or float(np.nanmax(found)) < least:
            continue
        row, column = np.unravel_index(int(np.nanargmax(found)), found.shape)
        parts = []
        if across[column]:
            parts.append(
                f"{abs(across[column]):g} degrees to the {'left' if across[column] > 0 else 'right'}"
            )
        if up[row]:
            parts.append(f"{abs(up[row]):g} degrees {'up' if up[row] < 0 else 'down'}")
        return f"its extrinsics are turned by about {' and '.join(parts)}", float(found[row, column])
    return None


def standing(frame: Frame) -> str:
    """What is wrong with how a camera stands in the scene, whose z is up; empty where nothing is."""
    to_scene = np.linalg.inv(frame.camera.world_to_camera.double().numpy())
    turn = to_scene[:3, :3]
    if -turn[2, 1] > UPRIGHT:
        return ""
    if turn[2, 2] > STANDS:
        return OTHER_AXES
    for quarter in range(4):
        scene_to_vehicle = Rotation.from_euler("z", 90 * quarter, degrees=True).as_matrix()
        right = np.linalg.inv(scene_to_vehicle @ turn @ scene_to_vehicle)
        if -right[2, 1] > STANDS:
            return INVERTED
    return "it is tilted by more than 60 degrees: its extrinsics are wrong, or z of the LiDAR is not up"


def _turned(pose: Float64[ndarray, "4 4"], turn: Float64[ndarray, "3 3"]) -> Float64[ndarray, "4 4"]:
    """A pose with the axes of the camera turned."""
    made = np.eye(4)
    made[:3, :3] = turn
    return made @ pose


def _mirror(width: int) -> Float64[ndarray, "3 3"]:
    return np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
