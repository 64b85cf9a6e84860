"""Which image, depth image and pose become a frame: compared with what a reader of the names would say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from ponderv2.datasets.frame_names import by_number, nearest_pairs, unit_of
from ponderv2.datasets.rgbd.config import PairingConfig
from ponderv2.datasets.rgbd.pairing import Pairing, Poses, pair_frames
from ponderv2.errors import SceneError
from ponderv2.geometry.poses import poses_at

WHERE = Path("room")


def poses(count: int, names: list[str] | None = None) -> Poses:
    """The n-th pose stands at x = n."""
    matrices = np.tile(np.eye(4), (count, 1, 1))
    matrices[:, 0, 3] = np.arange(count)
    return Poses(matrices, None if names is None else tuple(names))


def found(pairing: Pairing) -> list[tuple[int | None, int | None, float]]:
    """Place of the colour image, of the depth image, and number of the pose."""
    return [(one.color, one.depth, round(float(one.camera_to_world[0, 3]), 6)) for one in pairing.frames]


def diagonal(count: int) -> list[tuple[int, int, float]]:
    return [(n, n, float(n)) for n in range(count)]


def test_numbers_in_names_are_in_order_as_numbers():
    names = ["frame_10", "frame_2", "frame_1", "b", "1305031102.18", "1305031102.175304"]
    assert sorted(names, key=by_number) == [
        "1305031102.175304", "1305031102.18", "b", "frame_1", "frame_2", "frame_10"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("color", "depth", "pose"),
    [
        (["f-0.color", "f-1.color"], ["f-0.depth", "f-1.depth"], ["f-0.pose", "f-1.pose"]),
        (["1", "2"], ["0001", "0002"], ["1", "2"]),
        (["rgb_1", "rgb_2"], ["depth_0001", "depth_0002"], ["1", "2"]),
        (["0001_color", "0002_color"], ["0001_depth", "0002_depth"], ["0001", "0002"]),
        (["IMG_0001", "IMG_0002"], ["img_0001", "img_0002"], ["0001", "0002"]),
        (["image00001", "image00002"], ["depth00001", "depth00002"], ["1", "2"]),
        (["2023-05-01_12-30-59_7", "2023-05-01_12-31-00_8"],) * 3,
        (["0_1", "1_1"], ["0_1", "1_1"], ["0_1", "1_1"]),
        (["left_rgb_1", "right_rgb_1"], ["left_depth_1", "right_depth_1"], ["left_1", "right_1"]),
        (["door", "table"], ["door", "table"], ["door", "table"]),
        (["a1b2c3", "a1b2c4"], ["a1b2c3", "a1b2c4"], ["a1b2c3", "a1b2c4"]),
        (["0001-000000000000", "0002-000000033367"], ["0001-000000000010", "0002-000000033377"], ["1", "2"]),
    ],
)  # fmt: skip
def test_names_that_a_reader_would_pair(color: list[str], depth: list[str], pose: list[str]):
    result = pair_frames(WHERE, color, depth, poses(2, pose))
    assert found(result) == diagonal(2)
    assert not result.repairs


def test_frames_come_in_the_order_of_their_numbers():
    names = ["frame_10", "frame_2", "frame_1"]
    result = pair_frames(WHERE, names, names, poses(3, names))
    assert [one.name for one in result.frames] == ["frame_1", "frame_2", "frame_10"]
    assert found(result) == [(2, 2, 2.0), (1, 1, 1.0), (0, 0, 0.0)]


def test_images_named_by_seconds_with_decimals_do_not_share_a_key():
    times = [1305031102.175304 + n / 30 for n in range(60)]
    color, depth = [f"{t:.6f}" for t in times], [f"{t + 0.004:.6f}" for t in times]
    by_row = pair_frames(WHERE, color, depth, poses(60, [str(n) for n in range(60)]))
    assert found(by_row) == diagonal(60)
    assert any("by time (s" in note for note in by_row.notes)
    assert any("poses paired by order (60 of each" in note for note in by_row.notes)
    by_name = pair_frames(WHERE, depth, depth, poses(60, depth))
    assert found(by_name) == diagonal(60)


@pytest.mark.parametrize(("first", "step"), [(0, 1), (1, 1), (6, 1), (0, 10), (100, 5)])
def test_rows_with_numbers_belong_to_the_images_with_these_numbers(first: int, step: int):
    numbers = [first + n * step for n in range(10)]
    color, depth = [f"image{n:05d}" for n in numbers], [f"depth{n:05d}" for n in numbers]
    assert found(pair_frames(WHERE, color, depth, poses(10, [str(n) for n in numbers]))) == diagonal(10)
    lost = [n for n in range(10) if n != 4]
    fewer = Poses(poses(10).camera_to_world[lost], tuple(str(numbers[n]) for n in lost))
    result = pair_frames(WHERE, color, depth, fewer)
    assert found(result) == [(n, n, float(n)) for n in lost]
    assert any("1 frames without pose were left out" in repair for repair in result.repairs)


@pytest.mark.parametrize(("first", "step"), [(0, 1), (1, 1), (0, 2), (1, 10), (37, 1)])
def test_rows_without_numbers_go_by_order_where_counts_agree(first: int, step: int):
    names = [f"frame{first + n * step:06d}" for n in range(12)]
    assert found(pair_frames(WHERE, names, names, poses(12))) == diagonal(12)


def test_rows_of_all_frames_serve_images_that_were_thinned_out():
    names = [f"{n:06d}" for n in range(0, 40, 5)]
    result = pair_frames(WHERE, names, names, poses(40))
    assert [pose for _, _, pose in found(result)] == list(range(0, 40, 5))
    assert any("32 poses have no image" in note for note in result.notes)


def test_rows_without_numbers_are_counted_from_1_where_only_that_fits():
    names = [str(n) for n in range(2, 13)]  # the first image is lost, the last has the number of the last row
    assert [pose for _, _, pose in found(pair_frames(WHERE, names, names, poses(12)))] == list(range(1, 12))


def test_rows_that_can_be_counted_from_0_or_1_are_asked_for():
    names = [str(n) for n in range(1, 10)]
    with pytest.raises(SceneError, match="from 0 or from 1") as caught:
        pair_frames(WHERE, names, names, poses(12))
    assert "first_pose" in str(caught.value.fix)
    told = pair_frames(WHERE, names, names, poses(12), PairingConfig(first_pose=1))
    assert [pose for _, _, pose in found(told)] == list(range(9))


def test_a_missing_image_does_not_move_the_poses_of_rows():
    depth = [str(n) for n in range(1, 13)]
    color = [n for n in depth if n != "5"]
    result = pair_frames(WHERE, color, depth, poses(12))
    assert [pose for _, _, pose in found(result)] == [n for n in range(12) if n != 4]
    assert any("1 frames without colour were left out (5)" in repair for repair in result.repairs)


def test_gaps_in_the_middle_are_paired_by_number_and_named():
    color = [str(n) for n in range(10) if n != 3]
    depth = [str(n) for n in range(10) if n != 5]
    result = pair_frames(WHERE, color, depth, poses(10, [str(n) for n in range(10)]))
    kept = [n for n in range(10) if n not in (3, 5)]
    assert [pose for _, _, pose in found(result)] == kept
    assert [color[one.color] for one in result.frames if one.color is not None] == [str(n) for n in kept]
    assert sum("left out" in repair for repair in result.repairs) == 2


def test_folders_numbered_from_0_and_from_1_go_by_order():
    color, depth = [f"{n + 1:04d}" for n in range(8)], [f"{n:04d}" for n in range(8)]
    result = pair_frames(WHERE, color, depth, poses(8, [str(n) for n in range(8)]))
    assert found(result) == diagonal(8)
    assert any("one is numbered from 0, the other from 1" in note for note in result.notes)


def test_numbers_that_fit_in_part_and_order_that_fits_too_are_refused():
    color, depth = [str(n) for n in range(100, 110)], [str(n) for n in range(104, 114)]
    with pytest.raises(SceneError, match="more than one way") as caught:
        pair_frames(WHERE, color, depth, poses(10))
    assert "source.pairing.rule" in str(caught.value.fix)
    by_number_ = pair_frames(WHERE, color, depth, poses(6), PairingConfig(rule="number", first_pose=104))
    assert found(by_number_) == [(n + 4, n, float(n)) for n in range(6)]
    assert found(pair_frames(WHERE, color, depth, poses(10), PairingConfig(rule="order"))) == diagonal(10)


def test_two_files_never_share_a_key():
    color, depth = ["1", "0001", "0002", "0003"], ["0001", "0002", "0003"]
    result = pair_frames(WHERE, color, depth, poses(3, depth))
    assert found(result) == [(1, 0, 0.0), (2, 1, 1.0), (3, 2, 2.0)]
    assert any("without depth were left out (1)" in repair for repair in result.repairs)
    other = pair_frames(WHERE, [f"rgb_{name}" for name in color], depth, poses(3, depth))
    assert found(other) == found(result)
    assert any("colour rgb_1 has the number of rgb_0001" in repair for repair in other.repairs)
    with pytest.raises(SceneError, match=r"1, 01|01, 1"):
        pair_frames(WHERE, ["1", "01"], ["depth_1"], poses(1, ["1"]))


def test_thumbnails_and_masks_are_left_out_by_name_and_reported():
    depth = [f"depth_{n}" for n in range(5)]
    color = [f"frame_{n}" for n in range(5)] + ["cover", "frame_2 (1)"]
    result = pair_frames(WHERE, color, depth, poses(5, [str(n) for n in range(5)]))
    assert found(result) == diagonal(5)
    assert any("cover" in repair for repair in result.repairs)


def test_two_cameras_in_one_folder_are_refused_when_depth_does_not_say_which():
    color = [f"{side}_{n}" for side in ("left", "right") for n in range(5)]
    with pytest.raises(SceneError, match=r"left_#.*right_#"):
        pair_frames(WHERE, color, [str(n) for n in range(5)], poses(5))


def test_depth_alone_has_frames_too():
    depth = ["frame_10", "frame_9"]
    result = pair_frames(WHERE, None, depth, poses(2, ["9", "10"]))
    assert found(result) == [(None, 1, 0.0), (None, 0, 1.0)]


def test_what_does_not_fit_at_all_is_refused_with_counts_and_names():
    with pytest.raises(SceneError, match=r"room.*3 colour, 2 depth") as caught:
        pair_frames(WHERE, ["a1", "a2", "a3"], ["b7", "b9"], poses(3))
    assert caught.value.fix
    with pytest.raises(SceneError, match="no poses"):
        pair_frames(WHERE, ["1"], ["1"], poses(0))
    with pytest.raises(SceneError, match="0 depth"):
        pair_frames(WHERE, ["1"], [], poses(1))


@pytest.mark.parametrize("digits", [str, lambda n: f"{n:06d}"])
def test_more_poses_than_images_by_name(digits):
    names = [digits(n) for n in (3, 7, 12)]
    result = pair_frames(WHERE, names, names, poses(20, [digits(n) for n in range(20)]))
    assert [pose for _, _, pose in found(result)] == [3, 7, 12]


# Timestamps


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([f"{1305031102.175304 + n / 30:.6f}" for n in range(5)], "s"),
        ([str(int((1305031102.175304 + n / 30) * 1e3)) for n in range(5)], "ms"),
        ([str(int((1305031102.175304 + n / 30) * 1e6)) for n in range(5)], "us"),
        ([str(int((1305031102.175304 + n / 30) * 1e9)) for n in range(5)], "ns"),
        (["1305031102.175304"], "s"),
        (["1403636579763555584"], "ns"),
        ([f"{n / 30:.4f}" for n in range(5)], "s"),
        ([f"{n * 1000 / 30:.3f}" for n in range(5)], "ms"),
        (["0", "33", "67", "100"], "ms"),
        ([str(132574683871440000 + n * 333333) for n in range(5)], "100 ns"),
        ([str(1200000000000 + n * 33366667) for n in range(5)], "ns"),
        (["0", "33367", "66733", "100100"], "us"),
        (["0", "33366667", "66733333", "100100001"], "ns"),
        (["0", "1", "2", "3"], None),
        (["0", "10", "20", "30"], None),
        (["0", "10", "20", "40", "80"], None),
        (["3", "4", "6", "7", "9"], None),
    ],
)
def test_the_unit_of_times_follows_from_size_and_spacing(values: list[str], unit: str | None):
    from decimal import Decimal

    assert unit_of([Decimal(one) for one in values]) == unit


def swing(t: np.ndarray) -> np.ndarray:
    """Poses of a steady motion: truth at any time."""
    matrices = np.tile(np.eye(4), (len(t), 1, 1))
    matrices[:, :3, :3] = Rotation.from_rotvec(np.outer(t, [0.2, 0.9, -0.4])).as_matrix()
    matrices[:, :3, 3] = np.outer(t, [0.5, -0.2, 0.1]) + np.array([1, 2, 3])
    return matrices


def test_poses_between_two_others_are_those_of_a_steady_motion():
    t = np.arange(0, 2, 0.07)
    at = np.sort(np.random.default_rng(0).uniform(0, 1.9, 40))
    order = np.random.default_rng(1).permutation(len(t))
    result = poses_at(at, t[order], swing(t)[order], gap=0.1)
    assert result.known.all()
    np.testing.assert_allclose(result.camera_to_world, swing(at), atol=1e-9)
    between = Slerp(t, Rotation.from_matrix(swing(t)[:, :3, :3]))(at).as_matrix()
    np.testing.assert_allclose(result.camera_to_world[:, :3, :3], between, atol=1e-9)


def test_mirrored_poses_are_interpolated_as_mirrored_poses():
    t, mirror = np.array([0.0, 0.1]), np.diag([1.0, 1, -1, 1])
    result = poses_at(np.array([0.05]), t, swing(t) @ mirror, gap=0.2)
    np.testing.assert_allclose(result.camera_to_world[0], swing(np.array([0.05]))[0] @ mirror, atol=1e-9)


def test_a_gap_in_the_poses_and_an_invalid_pose_leave_frames_without_pose():
    t = np.array([0.0, 0.1, 0.2, 0.6, 0.7, 0.8])
    matrices = swing(t)
    matrices[4] = np.nan
    result = poses_at(np.array([-0.5, 0.05, 0.205, 0.4, 0.65, 0.8, 0.9]), t, matrices, gap=0.15)
    assert result.known.tolist() == [False, True, True, False, False, True, False]
    assert result.neighbour.tolist() == [False, False, True, False, False, False, False]
    assert result.interpolated.tolist() == [False, True, False, False, False, False, False]


def test_each_time_has_one_partner_and_the_nearest_come_first():
    first, second = np.array([0.0, 0.010, 0.030]), np.array([0.012, 0.031])
    assert nearest_pairs(first, second, 0.02) == [(1, 0), (2, 1)]
    assert nearest_pairs(np.array([5.0]), second, 0.02) == []


def stamps(times: np.ndarray, factor: float) -> list[str]:
    return [f"{t:.6f}" if factor == 1 else str(round(t * factor)) for t in times]


@pytest.mark.parametrize("images", [1, 1e3, 1e6, 1e9])
@pytest.mark.parametrize("tracker", [1, 1e6, 1e9])
def test_poses_of_another_rate_and_unit_are_interpolated(images: float, tracker: float):
    start = 1305031102.0
    t, at = np.arange(0, 1, 0.01), np.arange(0.1, 0.9, 1 / 30)
    names = stamps(start + at, images)
    result = pair_frames(WHERE, names, names, Poses(swing(t), tuple(stamps(start + t, tracker))))
    assert len(result.frames) == len(at)
    got = np.stack([one.camera_to_world for one in result.frames])
    np.testing.assert_allclose(got, swing(at), atol=1e-3 if images == 1e3 else 1e-5)
    assert any("interpolated" in note for note in result.notes)


def test_frames_in_a_gap_of_the_tracker_are_named():
    t = np.concatenate([np.arange(0, 0.5, 0.01), np.arange(0.8, 1.2, 0.01)])
    at = np.arange(0.02, 1.1, 0.05)
    names = [f"{1e9 + one:.6f}" for one in at]
    result = pair_frames(WHERE, names, names, Poses(swing(t), tuple(f"{1e9 + one:.6f}" for one in t)))
    inside = (at < 0.5) | (at > 0.8)
    assert len(result.frames) == inside.sum()
    assert any("without pose" in repair and "0.15 s" in repair for repair in result.repairs)


def test_repeated_poses_and_times_out_of_order_do_no_harm():
    t = np.array([0.2, 0.0, 0.1, 0.1, 0.3])
    names = [f"{1e9 + one:.3f}" for one in t]
    result = pair_frames(
        WHERE,
        ["1000000000.15", "1000000000.05"],
        ["1000000000.05", "1000000000.15"],
        Poses(swing(t), tuple(names)),
    )
    got = np.stack([one.camera_to_world for one in result.frames])
    np.testing.assert_allclose(got, swing(np.array([0.05, 0.15])), atol=1e-9)
    assert [one.color for one in result.frames] == [1, 0]
    assert any("1 poses have the number or time of another" in repair for repair in result.repairs)


def test_clocks_that_do_not_meet_are_refused_unless_order_fits():
    color = [f"{10 + n / 30:.6f}" for n in range(9)]
    stream = Poses(swing(np.arange(30) / 100), tuple(f"{1305031102 + n / 100:.6f}" for n in range(30)))
    with pytest.raises(SceneError, match="cannot be paired"):
        pair_frames(WHERE, color, color, stream)


def test_frames_chosen_at_irregular_distances_are_numbers_and_no_times():
    names = ["3", "47", "90", "133", "171"]
    kept = [0, 2, 3, 4]
    result = pair_frames(
        WHERE, names, names, Poses(poses(5).camera_to_world[kept], tuple(names[n] for n in kept))
    )
    assert found(result) == [(n, n, float(n)) for n in kept]
    assert any("without pose were left out (47)" in repair for repair in result.repairs)


def test_images_with_numbers_and_poses_with_times_go_by_order():
    names = [f"{n:06d}" for n in range(10)]
    times = [f"{n / 30:.4f}" for n in range(10)]
    result = pair_frames(WHERE, names, names, poses(10, times))
    assert found(result) == diagonal(10)
    assert any("by order (10 of each" in note for note in result.notes)
    with pytest.raises(SceneError, match="cannot be paired"):
        pair_frames(WHERE, names, names, poses(12, [f"{n / 30:.4f}" for n in range(12)]))


def test_one_image_without_a_number_has_the_one_pose():
    assert found(pair_frames(WHERE, ["a"], ["a"], poses(1))) == diagonal(1)


def test_rows_may_count_the_frames_that_have_both_images():
    color, depth = ["1", "2", "3", "5"], ["2", "3", "4", "5"]
    result = pair_frames(WHERE, color, depth, poses(3))
    assert [(frame.name, frame.camera_to_world[0, 3]) for frame in result.frames] == [
        ("2", 0),
        ("3", 1),
        ("5", 2),
    ]


def test_whole_names_that_look_like_one_number_stay_apart():
    names = ["1.1", "1.10", "00a4b0", "0a4b0", "0a4b00"]
    assert found(pair_frames(WHERE, names, names, poses(5, names))) == sorted(
        diagonal(5), key=lambda one: by_number(names[one[0]])
    )


def test_more_poses_from_0_than_images_from_1_go_by_number_and_say_what_else_could_be():
    names = [str(n) for n in range(1, 10)]
    result = pair_frames(WHERE, names, names, poses(12, [str(n) for n in range(12)]))
    assert [pose for _, _, pose in found(result)] == list(range(1, 10))
    assert any("first pose is that of image 0: as usual" in note for note in result.notes)
    moved = pair_frames(
        WHERE, names, names, poses(12, [str(n) for n in range(12)]), PairingConfig(first_pose=1)
    )
    assert [pose for _, _, pose in found(moved)] == list(range(9))
