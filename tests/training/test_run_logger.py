"""The log of a run: bounded in bytes, its newest lines there; what cannot be written is raised."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ponderv2.training.run_logger import OLDER, BoundedFile, Curves


def test_the_bound_counts_bytes_not_characters(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    log = BoundedFile(path, megabytes=0.002)
    for number in range(200):
        log.line(f"{number:04}" + "ü測" * 10)  # 4 + 20 characters, 4 + 50 bytes
        assert sum(one.stat().st_size for one in tmp_path.iterdir()) <= 2000
    log.close()
    files = [tmp_path / f"log.txt{OLDER}", path]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    numbers = [int(line[:4]) for file in files for line in file.read_text("utf-8").splitlines()]
    assert numbers == list(range(numbers[0], 200)) and len(numbers) >= 1000 // 55


def test_a_file_is_continued_and_lines_are_taken_as_they_are(tmp_path: Path) -> None:
    for text in ("100% of %s", "second"):
        log = BoundedFile(tmp_path / "log.txt", megabytes=float("inf"))
        log.line(text)
        log.close()
    assert (tmp_path / "log.txt").read_text() == "100% of %s\nsecond\n"


def test_a_line_that_cannot_be_written_raises_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    log = BoundedFile(Path("/dev/full"), megabytes=float("inf"))
    with pytest.raises(OSError, match="No space") as caught:
        log.line("x")
    log.close()
    assert caught.value.errno == errno.ENOSPC and capfd.readouterr() == ("", "")


def test_the_newest_curves_stay_whatever_names_and_times_of_files_say(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    other = tmp_path / "events.out.tfevents.9999999999.elsewhere.1.0"
    other.write_bytes(bytes(5000))
    os.utime(other, (4e9, 4e9))
    curves = Curves(tmp_path, 0, megabytes=0.02)
    for step in range(3001):
        curves.writer.add_scalar("loss", 1.0, step)
        if step % 500 == 0:
            curves.writer.flush()
    curves.close()
    files = sorted(tmp_path.iterdir())
    assert other not in files and len(files) == 2
    assert sum(path.stat().st_size for path in files) < 2 * 60_000  # a look every 1000 points
