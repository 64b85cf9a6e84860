"""Recordings with odd images, prepared: depth, colours and masks that come back are those of the room."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ponderv2.checks.config import CheckConfig
from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.recordings import ImageFile, RawFrame, Recording
from ponderv2.datasets.rgbd.config import FusionConfig, RgbdConfig
from ponderv2.datasets.rgbd.depth_units import with_unified_depth_unit
from ponderv2.errors import SceneError
from ponderv2.geometry.intrinsics import Intrinsics, pinhole
from ponderv2.scenes.scene import Scene
from ponderv2.workflows import prepare
from ponderv2.workflows.config import PrepareConfig
from tests.scenes import box_room

COARSE = FusionConfig(voxel_size=0.06, truncation=0.24)
COUNT = 4


@pytest.fixture
def room(tmp_path: Path) -> Path:
    box_room.write_nerfstudio(tmp_path / "room", box_room.shots(COUNT))
    return tmp_path / "room"


def prepared(path: Path, **source) -> tuple[Scene, tuple[str, ...]]:
    """The scene as it is read from the store, and what the report says."""
    settings = RgbdConfig(path=path, fusion=COARSE, up_axis="z", **source)
    out = path.parent / "out"
    result = prepare.run(PrepareConfig(source=settings, out=out, workers=1, check=CheckConfig(n_pixels=300)))
    only = result.scenes[0]
    return open_folder(out).read(only.name), (*only.notes, *only.why)


def refused(path: Path, **source) -> SceneError:
    with pytest.raises(SceneError) as caught:
        prepared(path, **source)
    return caught.value


def edit(room: Path, change: Callable[[dict], object]) -> None:
    values = json.loads((room / "transforms.json").read_text())
    change(values)
    (room / "transforms.json").write_text(json.dumps(values))


def with_depth(room: Path, write: Callable[[Path, np.ndarray], Path]) -> None:
    """Replaces the depth images; `write` gets a path and depth in metres, and returns what it wrote."""
    for old, shot in zip(sorted((room / "depths").iterdir()), box_room.shots(COUNT), strict=True):
        old.unlink()
        new = write(old, shot.depth)
        edit(
            room,
            lambda values, old=old, new=new: values["frames"][int(old.stem)].update(
                depth_file_path=f"depths/{new.name}"
            ),
        )


def npy(path: Path, values: np.ndarray) -> Path:
    np.save(path.with_suffix(".npy"), values)
    return path.with_suffix(".npy")


def worst_depth(scene: Scene) -> float:
    return max(
        float(np.abs(frame.read_depth().numpy() - shot.depth).max())
        for frame, shot in zip(scene.frames, box_room.shots(COUNT), strict=True)
    )


def said(notes: tuple[str, ...], *words: str) -> bool:
    return any(all(word in note for word in words) for note in notes)


# Numbers of depth images -----------------------------------------------------------------------------------

FLOATS = {
    "metres": (1.0, {}, "floats in metres"),
    "millimetres": (1000.0, {}, "floats in millimetres"),
    "centimetres that the file declares": (100.0, {"depth_unit_scale_factor": 0.01}, "as declared"),
    "metres against a declared 1 mm": (1.0, {"depth_unit_scale_factor": 0.001}, "not in the declared"),
    "negative metres": (-1.0, {}, "sign was changed"),
}


@pytest.mark.parametrize("kind", FLOATS)
def test_floats_are_depths_in_their_unit(room, kind):
    factor, keys, note = FLOATS[kind]
    with_depth(room, lambda path, depth: npy(path, (depth * factor).astype(np.float32)))
    edit(room, lambda values: values.update(keys))
    scene, notes = prepared(room)
    assert worst_depth(scene) < 0.0003  # stored in steps of 0.2 mm
    assert said(notes, note) and said(notes, "0.2 mm")


def test_centimetres_that_nobody_declares_are_asked_for(room):
    with_depth(room, lambda path, depth: npy(path, (depth * 100).astype(np.float32)))
    error = refused(room)
    assert "neither metres nor millimetres" in error.message and "--depth-scale" in str(error.fix)
    scene, _ = prepared(room, depth_scale=0.01)
    assert worst_depth(scene) < 0.0003


def test_rotated_bits_are_rotated_back(room):
    def rotated(path: Path, depth: np.ndarray) -> Path:
        whole = np.rint(depth * 1000).astype(np.uint16)
        Image.fromarray((whole << 3) | (whole >> 13)).save(path)
        return path

    with_depth(room, rotated)
    scene, notes = prepared(room)
    assert worst_depth(scene) < 0.001
    assert said(notes, "multiples of 8", "rotated back")


def test_depth_in_steps_of_8_mm_is_not_rotated(room):
    def stepped(path: Path, depth: np.ndarray) -> Path:
        Image.fromarray((np.rint(depth * 125) * 8).astype(np.uint16)).save(path)
        return path

    with_depth(room, stepped)
    scene, notes = prepared(room)
    assert worst_depth(scene) < 0.005
    assert said(notes, "multiples of 8", "taken as they are")


def test_integers_of_more_than_16_bits_are_stored_in_a_coarser_unit(room):
    with_depth(room, lambda path, depth: npy(path, np.rint(depth * 50_000).astype(np.int32)))
    scene, notes = prepared(room, depth_scale=1 / 50_000)
    assert worst_depth(scene) < 0.0003 and said(notes, "0.2 mm")


def test_another_unit_than_that_of_the_layout_is_suggested(room):
    def deci(path: Path, depth: np.ndarray) -> Path:
        Image.fromarray(np.rint(depth * 10_000).clip(0, 65534).astype(np.uint16)).save(path)
        return path

    with_depth(room, deci)  # the median is 20 m in millimetres: farther than what is kept
    error = refused(room)
    assert "the median depth is" in error.message and "0.0001 (0.1 mm)" in error.message
    scene, _ = prepared(room, depth_scale=0.0001)
    assert worst_depth(scene) < 0.001


def test_eight_bits_are_refused_and_the_reason_is_what_is_said(room):
    def eight(path: Path, depth: np.ndarray) -> Path:
        Image.fromarray((depth / 6 * 255).astype(np.uint8)).save(path)
        return path

    with_depth(room, eight)
    error = refused(room)
    assert "8 bits" in error.message and "cannot be depth" in error.message and "000.png" in error.message
    assert "16-bit PNG" in str(error.fix)


def test_an_image_in_floats_among_images_of_16_bits_has_its_own_unit(room):
    path = npy(room / "depths" / "002.png", box_room.shots(COUNT)[2].depth.astype(np.float32))
    edit(room, lambda values: values["frames"][2].update(depth_file_path=f"depths/{path.name}"))
    scene, _ = prepared(room)
    assert worst_depth(scene) < 0.001


# Cameras of other aspect -----------------------------------------------------------------------------------


def test_depth_of_another_aspect_cannot_be_of_the_camera(room, tmp_path):
    tall = np.array([[70.0, 0, 29.5], [0, 62.0, 30.5], [0, 0, 1]])  # narrower than the colour camera

    def cropped(path: Path, depth: np.ndarray) -> Path:
        Image.fromarray(np.rint(depth[:, 9:-9] * 1000).astype(np.uint16)).save(path)
        return path

    with_depth(room, cropped)
    error = refused(room)
    assert "62 x 60" in error.message and "80 x 60" in error.message and "--intrinsics" in str(error.fix)
    np.savetxt(tmp_path / "depth.txt", tall)
    scene, _ = prepared(room, intrinsics=tmp_path / "depth.txt")
    for frame, shot in zip(scene.frames, box_room.shots(COUNT), strict=True):
        assert np.allclose(frame.camera.intrinsics.numpy(), tall)
        assert (
            np.abs(frame.read_color().numpy().astype(int) - shot.color[:, 9:-9]).mean() < 4
        )  # its own camera


def test_colour_of_another_aspect_than_its_camera_is_refused(room):
    for path in (room / "images").iterdir():
        Image.open(path).crop((0, 8, 80, 52)).save(path)
    error = refused(room)
    assert "80 x 44" in error.message and "--color-intrinsics" in str(error.fix)


def test_one_camera_file_for_larger_colour_images_is_that_of_the_depth(tmp_path):
    box_room.write_scannet(tmp_path / "room", box_room.shots(COUNT))
    (tmp_path / "room/intrinsic/intrinsic_color.txt").unlink()
    scene, _ = prepared(tmp_path / "room")
    for frame, shot in zip(scene.frames, box_room.shots(COUNT), strict=True):
        assert np.abs(frame.read_color().numpy().astype(int) - shot.color).mean() < 6


# Colours and masks -----------------------------------------------------------------------------------------


def hidden_left() -> np.ndarray:
    visible = np.ones((box_room.HEIGHT, box_room.WIDTH), bool)
    visible[:, :30] = False
    return visible


def points_seen_through(scene: Scene, visible: np.ndarray) -> bool:
    """Whether every point of the cloud is seen by a visible pixel of some frame (or a neighbour of one)."""
    points = np.c_[scene.cloud.coord.numpy(), np.ones(len(scene.cloud))]
    near = visible | np.roll(visible, -2, axis=1)
    seen = np.zeros(len(points), bool)
    for frame in scene.frames:
        at = points @ frame.camera.world_to_camera.numpy().T
        pixel = at[:, :3] @ frame.camera.intrinsics.numpy().T
        column, row = (np.rint(pixel[:, axis] / pixel[:, 2]).astype(int) for axis in (0, 1))
        inside = (at[:, 2] > 0) & (column >= 0) & (row >= 0)
        inside &= (column < visible.shape[1]) & (row < visible.shape[0])
        seen[inside] |= near[row[inside], column[inside]]
    return bool(seen.mean() > 0.999)


def write_masks(room: Path, how: str) -> None:
    visible = hidden_left()
    values = visible.astype(np.uint8) * 255
    for index in range(COUNT):
        image = room / f"images/{index:03d}.png"
        if how == "alpha":
            pixels = np.where(visible[..., None], np.asarray(Image.open(image)), 0).astype(np.uint8)
            Image.fromarray(np.dstack([pixels, values])).save(image)
            continue
        name, inverse = {
            "mask_path": (f"hide/{index}.png", False),
            "folder beside": (f"masks/{index:03d}.png", False),
            "COLMAP": (f"masks/{index:03d}.png.png", False),
            "instant-ngp": (f"images/dynamic_mask_{index:03d}.png", True),
            "half size": (f"masks/{index:03d}.png", False),
        }[how]
        path = room / name
        path.parent.mkdir(exist_ok=True)
        made = 255 - values if inverse else values
        Image.fromarray(made[::2, ::2] if how == "half size" else made).save(path)
        if how == "mask_path":
            edit(room, lambda v, i=index, n=name: v["frames"][i].update(mask_path=n))


@pytest.mark.parametrize("how", ["alpha", "mask_path", "folder beside", "COLMAP", "instant-ngp", "half size"])
def test_what_a_mask_hides_has_neither_depth_nor_points(room, how):
    write_masks(room, how)
    scene, notes = prepared(room)
    visible = hidden_left()
    slack = slice(28, 33) if how == "half size" else slice(0, 0)  # pixels between two of the mask
    for frame, shot in zip(scene.frames, box_room.shots(COUNT), strict=True):
        found, depth = frame.read_visible().numpy(), frame.read_depth().numpy()
        assert np.array_equal(np.delete(found, slack, axis=1), np.delete(visible, slack, axis=1))
        assert not depth[~found].any() and np.abs(depth - shot.depth)[found].max() < 0.001
        assert np.abs(frame.read_color().numpy().astype(int) - shot.color)[found].mean() < 6
    assert points_seen_through(scene, visible)
    assert said(notes, "neither colour nor depth") and said(notes, f"{COUNT} frames")


def test_masks_can_be_turned_round_and_left_aside(room):
    write_masks(room, "folder beside")
    scene, notes = prepared(room, masks="white")
    assert np.array_equal(scene.frames[0].read_visible().numpy(), ~hidden_left()) and said(notes, "white")
    scene, notes = prepared(room, masks="ignore")
    assert scene.frames[0].mask_path is None and said(notes, "left aside")


def test_masks_that_hide_everything_are_doubted(room):
    (room / "masks").mkdir()
    for index in range(COUNT):
        Image.fromarray(np.zeros((60, 80), np.uint8)).save(room / f"masks/{index:03d}.png")
    error = refused(room)
    assert "hide everything" in error.message and "black hides" in str(error.fix)


def test_a_mask_of_another_aspect_and_one_that_is_missing_are_named(room):
    write_masks(room, "mask_path")
    (room / "hide/1.png").unlink()
    Image.fromarray(np.ones((60, 60), np.uint8)).save(room / "hide/2.png")
    scene, notes = prepared(room)
    assert len(scene.frames) == COUNT - 1
    assert said(notes, "1 masks are not there", "1.png") and said(notes, "2.png", "60 x 60")
    assert [frame.mask_path is None for frame in scene.frames] == [False, True, False]


def test_a_mask_is_warped_with_the_colours_into_another_depth_camera(tmp_path):
    box_room.write_scannet(tmp_path / "room", box_room.shots(COUNT))
    visible = np.repeat(np.repeat(hidden_left(), 2, axis=0), 2, axis=1)
    (tmp_path / "room/masks").mkdir()
    for index in range(COUNT):
        Image.fromarray(visible.astype(np.uint8) * 255).save(tmp_path / f"room/masks/{index}.png")
    shifted = np.eye(4)
    shifted[0, 3] = 0.001
    np.savetxt(tmp_path / "room/intrinsic/extrinsic_color.txt", shifted)  # two cameras, 1 mm apart
    scene, _ = prepared(tmp_path / "room")
    found = scene.frames[0].read_visible().numpy()
    assert not found[:, :29].any() and found[:, 32:].mean() > 0.98


def test_grey_of_16_bits_has_the_colours_of_grey_of_8(room):
    for index, shot in enumerate(box_room.shots(COUNT)):
        grey = shot.color.mean(axis=-1).round()
        Image.fromarray((grey * 257).astype(np.uint16)).save(room / f"images/{index:03d}.png")
    scene, notes = prepared(room)
    expected = box_room.shots(COUNT)[1].color.mean(axis=-1).round()
    assert np.abs(scene.frames[1].read_color().numpy()[..., 1].astype(int) - expected).mean() < 3
    assert said(notes, f"{COUNT} colour images", "0..65535")


@pytest.mark.parametrize("crosswise", [False, True])
def test_exif_orientation_counts_only_where_the_sizes_say_so(room, crosswise):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    for index, shot in enumerate(box_room.shots(COUNT)):
        stored = np.rot90(shot.color) if crosswise else shot.color
        path = room / f"images/{index:03d}.jpg"
        Image.fromarray(np.ascontiguousarray(stored)).save(path, quality=95, exif=exif)
        (room / f"images/{index:03d}.png").unlink()
        edit(room, lambda v, i=index: v["frames"][i].update(file_path=f"images/{i:03d}.jpg"))
    scene, notes = prepared(room)
    for frame, shot in zip(scene.frames, box_room.shots(COUNT), strict=True):
        assert np.abs(frame.read_color().numpy().astype(int) - shot.color).mean() < 6
    assert said(notes, "turned as EXIF says" if crosswise else "cameras belong to the stored pixels")
    stored = Image.open(scene.frames[0].color_path or "")
    assert stored.getexif().get(0x0112, 1) == 1  # other programs read the same pixels from the store


# Recordings of depth alone ---------------------------------------------------------------------------------


def drop_color(root: Path, layout: str) -> None:
    """Takes the colours out of a recording as somebody would who never had any."""
    for path in list(root.rglob("*.color.*")) + list((root / "results").glob("frame*")):
        path.unlink()
    for folder in ("color", "rgb", "image", "images"):
        for path in (root / folder).glob("*"):
            path.unlink()
        if (root / folder).is_dir():
            (root / folder).rmdir()
    (root / "rgb.txt").unlink(missing_ok=True)
    for path in (root / "intrinsic").glob("*_color.txt"):
        path.unlink()
    if layout == "nerfstudio":
        edit(root, lambda values: [one.pop("file_path") for one in values["frames"]])


@pytest.mark.parametrize("layout", sorted(set(box_room.WRITERS) - {"sens"}))
def test_depth_alone_gives_the_room_in_every_layout(tmp_path, layout):
    taken = box_room.shots(COUNT)
    box_room.WRITERS[layout](tmp_path / "room", taken)
    drop_color(tmp_path / "room", layout)
    np.savetxt(tmp_path / "camera.txt", box_room.K)
    given = {"intrinsics": tmp_path / "camera.txt"} if layout == "tum" else {}
    scene, notes = prepared(tmp_path / "room", holdout=4, **given)
    assert f"layout {layout}" in notes
    assert said(notes, f"{COUNT} of {COUNT} frames have depth alone", "the points have no colour")
    assert scene.only_depth and [frame.held_out for frame in scene.frames] == [False] * 3 + [True]
    for frame, shot in zip(scene.frames, taken, strict=True):
        assert np.allclose(np.linalg.inv(frame.camera.world_to_camera.numpy()), shot.pose, atol=1e-4)
        assert np.abs(frame.read_depth().numpy() - shot.depth).max() < 0.002
    points, normals = scene.cloud.coord.numpy().astype(float), scene.cloud.normal.numpy()
    assert np.median(box_room.distance_to_room(points)) < 0.01
    assert np.allclose(np.linalg.norm(normals, axis=1), 1.0, atol=1e-4)
    inside = points + 0.1 * normals
    toward_room = ((inside > box_room.LOWER) & (inside < box_room.UPPER)).all(axis=1)
    assert toward_room.mean() > 0.95


def test_a_recording_of_depth_alone_is_checked(tmp_path):
    box_room.write_7scenes(tmp_path / "room", box_room.shots(COUNT))
    drop_color(tmp_path / "room", "7scenes")
    out = tmp_path / "out"
    source = RgbdConfig(path=tmp_path / "room", fusion=COARSE, up_axis="z", depth_scale=0.002)
    result = prepare.run(PrepareConfig(source=source, out=out, workers=1, check=CheckConfig(n_pixels=400)))
    found = result.scenes[0].check
    assert found is not None and found.suspect and "0.5" in found.likely_cause  # twice as deep as the room
    assert found.color_correlation is None


def test_published_sun_rgbd_depth_is_recognised(sample_data):
    """Numbers as they are distributed: 19 m in millimetres, 2.4 m with the bits corrected."""
    paths = sorted((sample_data / "sunrgbd").rglob("depth_bfx/*.png"))
    if not paths:
        pytest.skip("no SUN RGB-D sample; choose a folder with --sample-data")
    intrinsics = Intrinsics(pinhole(529.5, 529.5, 365.0, 265.0), (730, 530))
    frame = RawFrame("0", None, ImageFile(paths[0]), np.eye(4), intrinsics, intrinsics)
    recording = with_unified_depth_unit(Recording("sun", (frame,), 0.001), 10.0, None)
    raw = np.asarray(Image.open(paths[0])).astype(np.uint32)
    expected = ((raw >> 3) | (raw << 13)) & 0xFFFF
    assert np.array_equal(recording.frames[0].depth.depth(), expected)
    assert 1.0 < np.median(expected[expected > 0]) / 1000 < 4.0 and "rotated back" in recording.notes[0]
