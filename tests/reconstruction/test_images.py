"""Image files read back, and the colours of what is not there."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from ponderv2.errors import OutputError, ResourceError
from ponderv2.io.images import read_color, read_integers
from ponderv2.reconstruction.images import (
    check_video,
    class_bytes,
    normal_bytes,
    write_depth,
    write_rgb,
    write_video,
)


def test_depth_is_stored_in_millimetres(tmp_path):
    write_depth(tmp_path / "d.png", torch.tensor([[0.0, 1.2344, 70.0]]))
    assert read_integers(tmp_path / "d.png").tolist() == [[0, 1234, 65535]]


def test_colours_are_stored_as_they_are(tmp_path, rng):
    image = torch.randint(256, (5, 7, 3), generator=rng, dtype=torch.uint8).numpy()
    write_rgb(tmp_path / "deep" / "c.png", image)
    assert np.array_equal(read_color(tmp_path / "deep" / "c.png"), image)


def test_normals_and_classes_that_do_not_exist_are_black():
    normal = torch.tensor([[[0.0, 0, 1], [0, 0, 0]]])
    assert normal_bytes(normal).tolist() == [[[128, 128, 255], [0, 0, 0]]]
    colors = class_bytes(torch.tensor([[-1, 0, 1, 2]]), ((1, 2, 3), (4, 5, 6)))
    assert colors[0, :3].tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6]]
    assert colors[0, 3].any()


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_a_video_has_all_its_images(tmp_path, suffix):
    import imageio.v3 as imageio

    if suffix == "mp4":
        pytest.importorskip("imageio_ffmpeg")
    images = [np.full((16, 32, 3), 40 * index, dtype=np.uint8) for index in range(5)]
    path = tmp_path / f"video.{suffix}"
    write_video(path, images, 10)
    read = imageio.imread(path, index=None) if suffix == "gif" else imageio.imread(path)
    assert len(read) == 5
    assert abs(int(read[3][8, 8, 0]) - 120) < 12
    assert list(tmp_path.iterdir()) == [path]


def test_mp4_without_its_package_is_refused_with_advice(monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ResourceError) as caught:
        check_video("mp4")
    assert caught.value.fix is not None and "ponder[video]" in caught.value.fix
    check_video("gif")


def test_a_full_disk_leaves_the_old_image(tmp_path, monkeypatch):
    write_depth(tmp_path / "d.png", torch.ones(1, 1))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError):
        write_depth(tmp_path / "d.png", torch.zeros(1, 1))
    assert read_integers(tmp_path / "d.png").tolist() == [[1000]]
