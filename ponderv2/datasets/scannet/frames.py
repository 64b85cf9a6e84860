"""Frames of a ScanNet scene, from its .sens file or an exported folder, with 2D labels from their zip."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt16
from numpy import ndarray

from ponderv2.datasets.recordings import Limits, RawFrame, Recording, register, seen_pixels
from ponderv2.datasets.rgbd.layouts import scannet as exported
from ponderv2.datasets.rgbd.layouts import sens as sens_file
from ponderv2.datasets.scannet.config import ScannetConfig
from ponderv2.errors import SceneError
from ponderv2.geometry.intrinsics import Intrinsics
from ponderv2.geometry.poses import clean_poses
from ponderv2.geometry.registration import sample_nearest
from ponderv2.io.images import decode_integers, encoded_image_size
from ponderv2.scenes.prepared import DecodedFrame

LARGEST_LABEL = 16 * 2**20
"""Bytes of a label image, and its pixels; real ones have a tenth of that."""
_LABEL_NAME = re.compile(r"(?:(?:scene\d{4}_\d\d/)?label(?:-filt)?/)?(\d{1,9})\.png")


@dataclass
class FrameFindings:
    """What is learnt while frames are read; the only thing here that changes."""

    notes: list[str] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    bad_labels: list[str] = field(default_factory=list)
    n_frames: int = 0
    n_labelled: int = 0
    n_dropped: int = 0
    n_pixels: int = 0

    def summary(self) -> tuple[list[str], list[str]]:
        """Notes and repairs, once the last frame was seen."""
        notes, repairs = list(self.notes), list(self.repairs)
        notes.append(f"{self.n_frames} frames, {self.n_labelled} of them with 2D labels")
        if self.n_dropped:
            share = self.n_dropped / max(self.n_pixels, 1)
            notes.append(f"{share:.1%} of the depths were outside of the limits")
        for what, found in (
            ("unreadable frames were dropped", self.unreadable),
            ("frames without depth were dropped", self.empty),
            ("2D labels could not be read and were left out", self.bad_labels),
        ):
            if found:
                repairs.append(f"{len(found)} {what}, the first: {found[0]}")
        return notes, repairs


@dataclass(frozen=True)
class LabelZip:
    """The 2D labels of a scene, read from the archive as they are needed."""

    path: Path
    archive: zipfile.ZipFile
    members: dict[int, zipfile.ZipInfo]
    """By the number of the frame."""

    @staticmethod
    def open(path: Path) -> LabelZip:
        """Raises SceneError for what is not an archive of label images."""
        try:
            archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise SceneError(f"{path} is not a readable zip file ({error})", fix="copy it again") from error
        members = {
            int(match[1]): info
            for info in archive.infolist()
            if (match := _LABEL_NAME.fullmatch(info.filename)) is not None
        }
        if not members:
            archive.close()
            raise SceneError(f"{path} holds no images label-filt/0.png, ...", fix="download it again")
        return LabelZip(path, archive, members)

    def read(self, number: int) -> UInt16[ndarray, "row column"] | None:
        """Label ids of a frame, None when there are none.

        Raises:
            SceneError: a member that is damaged, encrypted or too large.
        """
        info = self.members.get(number)
        if info is None:
            return None
        name = f"{self.path} ({info.filename})"
        if info.flag_bits & 1 or info.file_size > LARGEST_LABEL:
            raise SceneError(f"{name} is encrypted or far too large for a label image")
        try:
            with self.archive.open(info) as member:
                data = member.read(LARGEST_LABEL + 1)
        except (OSError, zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, zlib.error) as error:
            raise SceneError(f"{name} is damaged ({error})") from error
        if len(data) > LARGEST_LABEL:
            raise SceneError(f"{name} is far too large for a label image")
        width, height = encoded_image_size(data, name)
        if width * height > LARGEST_LABEL:
            raise SceneError(f"{name} claims to have {width} x {height} pixels")
        return decode_integers(data, name)

    def close(self) -> None:
        """Close the archive."""
        self.archive.close()


def find_recording(folder: Path, name: str) -> Recording | None:
    """The scene's recording: its .sens file, else an exported folder; None when there is neither.

    ScanNet's colour and depth count as one camera of two sizes, as in all published work.
    """
    sens = folder / f"{name}.sens"
    if sens.is_file():
        recording = sens_file.read(sens)
    elif exported.matches(folder):
        recording = exported.read(folder)
    else:
        return None
    if any(frame.depth_intrinsics.matrix[1, 1] < 0 for frame in recording.frames):
        raise SceneError(
            f"the depth camera of {folder} has fy below zero", fix="no ScanNet camera has: copy it again"
        )
    return replace(recording, depth_to_color=None)


def find_labels(folder: Path, name: str) -> Path | None:
    """The archive of 2D labels: the cleaned ones, else the raw projections."""
    paths = (folder / f"{name}_2d-label-filt.zip", folder / f"{name}_2d-label.zip")
    return next((path for path in paths if path.is_file()), None)


def chosen_frames(recording: Recording, config: ScannetConfig, found: FrameFindings) -> tuple[RawFrame, ...]:
    """Tracked frames, `stride` recorded frames apart by their numbers."""
    chosen: list[RawFrame] = []
    last = -config.stride
    for number, frame in sorted(((_number(one), one) for one in recording.frames), key=lambda pair: pair[0]):
        if number - last >= config.stride:
            chosen.append(frame)
            last = number
    if not chosen:
        return ()
    clean = clean_poses(np.stack([frame.camera_to_world for frame in chosen]))
    if not clean.valid.all():
        lost = [frame.id for frame, reason in zip(chosen, clean.reasons, strict=True) if reason]
        found.repairs.append(f"{len(lost)} frames without tracking were dropped, the first is {lost[0]}")
    frames = tuple(
        replace(frame, camera_to_world=pose)
        for frame, pose, valid in zip(chosen, clean.camera_to_world, clean.valid, strict=True)
        if valid
    )
    if config.max_frames is not None and len(frames) > config.max_frames:
        keep = np.linspace(0, len(frames) - 1, config.max_frames).round().astype(int)
        frames = tuple(frames[index] for index in keep)
    return frames


def prepared_frames(
    recording: Recording,
    config: ScannetConfig,
    labels: FrameLabels | None,
    transform: Float[ndarray, "4 4"],
    found: FrameFindings,
) -> Iterator[DecodedFrame]:
    """Colour resized to depth, one frame in memory at a time; cameras after x' = transform x."""
    limits = Limits(config.depth_min, config.depth_max, config.max_image_size)
    for raw in chosen_frames(recording, config, found):
        try:
            registered = register(raw, recording, limits)
        except SceneError as error:
            found.unreadable.append(error.message)
            continue
        n_kept = int(np.count_nonzero(registered.depth))
        found.n_dropped += registered.n_dropped
        found.n_pixels += n_kept + registered.n_dropped
        if n_kept == 0:
            found.empty.append(raw.id)
            continue
        semantic = None
        if labels is not None:
            semantic = labels.of_frame(raw, registered.frame.intrinsics, registered.depth.shape, found)
        found.n_frames += 1
        found.n_labelled += semantic is not None
        yield replace(
            registered.frame,
            camera_to_world=transform @ raw.camera_to_world,
            semantic=semantic,
            held_out=config.holdout > 0 and found.n_frames % config.holdout == 0,
        )


@dataclass(frozen=True)
class FrameLabels:
    """2D labels as classes at the size of the prepared images."""

    archive: LabelZip
    class_of_id: Int[ndarray, "65536"]

    def of_frame(
        self, raw: RawFrame, intrinsics: Float[ndarray, "3 3"], shape: tuple[int, ...], found: FrameFindings
    ) -> Int[ndarray, "row column"] | None:
        """Class per pixel, -1 = none; None when the frame has no labels or they cannot be read."""
        try:
            ids = self.archive.read(_number(raw))
        except SceneError as error:
            found.bad_labels.append(error.message)
            return None
        return (
            None if ids is None else self.class_of_id[_as_seen(ids, raw.color_intrinsics, intrinsics, shape)]
        )


def _as_seen(
    ids: UInt16[ndarray, "row column"],
    camera: Intrinsics,
    intrinsics: Float[ndarray, "3 3"],
    shape: tuple[int, ...],
) -> UInt16[ndarray, "height width"]:
    """Label ids of the nearest pixels, registered to the depth camera as the colours are."""
    height, width = shape
    size = (ids.shape[1], ids.shape[0])
    pixel = seen_pixels(camera, size, intrinsics, (width, height))
    if pixel is not None:
        return sample_nearest(ids, pixel)
    row = ((np.arange(height) + 0.5) * (size[1] / height)).astype(np.int64)
    column = ((np.arange(width) + 0.5) * (size[0] / width)).astype(np.int64)
    return ids[row[:, None], column]


def _number(frame: RawFrame) -> int:
    """Number of the recorded frame; its id is nothing else."""
    digits = re.sub(r"\D", "", frame.id)
    return int(digits) if digits else 0
