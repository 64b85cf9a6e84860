"""Files that several processes write or leave half written; the digest that tells what changed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ponderv2.errors import OutputError
from ponderv2.io import files
from tests.conftest import PROJECT

WRITES = 300
WRITER = """
import sys
from pathlib import Path
from ponderv2.io.files import replacement, write_bytes
path, letter, way = Path(sys.argv[1]), sys.argv[2].encode(), sys.argv[3]
for number in range(int(sys.argv[4])):
    data = letter * (1 + 997 * (number % 40))
    if way == "bytes":
        write_bytes(path, data)
    else:
        with replacement(path, ending=".bin") as temporary:
            temporary.write_bytes(data)
print("done")
"""
FOLDERS = """
import sys
from pathlib import Path
from ponderv2.io.files import replace_folder, temporary_path
target, letter = Path(sys.argv[1]), sys.argv[2]
for number in range(int(sys.argv[3])):
    new = temporary_path(target)
    new.mkdir()
    for name in ("a", "b"):
        (new / name).write_text(f"{letter}{number}")
    replace_folder(new, target)
print("done")
"""


def _start(code: str, *words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _is_whole(data: bytes) -> bool:
    return data[:1] in (b"a", b"b") and data == data[:1] * len(data) and len(data) % 997 == 1


@pytest.mark.parametrize("way", ["bytes", "path"])
def test_two_processes_write_one_path_and_it_is_whole_at_every_moment(tmp_path: Path, way: str):
    path = tmp_path / "cache" / "one"
    writers = [_start(WRITER, path, letter, way, WRITES) for letter in "ab"]
    seen = 0
    while any(one.poll() is None for one in writers):
        if path.exists():
            assert _is_whole(path.read_bytes())
            seen += 1
    for one in writers:
        said, wrong = one.communicate(timeout=60)
        assert (one.returncode, said, wrong) == (0, "done\n", "")
    assert seen > 0 and _is_whole(path.read_bytes())
    assert [one.name for one in path.parent.iterdir()] == ["one"]


def test_two_processes_replace_one_folder_and_each_succeeds(tmp_path: Path):
    target = tmp_path / "room"
    writers = [_start(FOLDERS, target, letter, 100) for letter in "ab"]
    for one in writers:
        said, wrong = one.communicate(timeout=60)
        assert (one.returncode, said, wrong) == (0, "done\n", "")
    assert [one.name for one in tmp_path.iterdir()] == ["room"]
    assert (target / "a").read_text() == (target / "b").read_text()


def test_threads_of_one_process_write_one_path(tmp_path: Path):
    path, wrong = tmp_path / "one", []

    def write(letter: bytes) -> None:
        try:
            for number in range(50):
                files.write_bytes(path, letter * (1 + 997 * number))
        except OutputError as error:
            wrong.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"a")]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not wrong and _is_whole(path.read_bytes()) and len(list(tmp_path.iterdir())) == 1


def test_leftovers_of_a_killed_writer_go_and_those_of_a_living_one_stay(tmp_path: Path):
    code = """
import sys, time
from pathlib import Path
from ponderv2.io.files import replacement, temporary_path
with replacement(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    print(temporary.name, flush=True)
    time.sleep(600)
"""
    dead, living = (_start(code, tmp_path / name) for name in ("dead", "living"))
    names = [one.stdout.readline().strip() for one in (dead, living) if one.stdout is not None]
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    assert {one.name for one in tmp_path.iterdir()} == set(names)
    files.write_bytes(tmp_path / "other", b"x")
    assert {one.name for one in tmp_path.iterdir()} == {names[1], "other"}
    living.send_signal(signal.SIGKILL)
    living.communicate()
    files.remove_leftovers(tmp_path)
    assert {one.name for one in tmp_path.iterdir()} == {"other"}


COUNTER = """
import sys
from pathlib import Path
from ponderv2.io.files import exclusively, write_bytes
path = Path(sys.argv[1])
for _ in range(100):
    with exclusively(path):
        write_bytes(path, str(int(path.read_bytes()) + 1).encode())
print("done")
"""


def test_two_processes_that_change_one_file_lose_nothing(tmp_path: Path):
    files.write_bytes(tmp_path / "count", b"0")
    counters = [_start(COUNTER, tmp_path / "count") for _ in range(2)]
    assert [one.communicate(timeout=60)[0] for one in counters] == ["done\n"] * 2
    assert (tmp_path / "count").read_bytes() == b"200"


def test_without_a_place_for_the_lock_the_file_is_changed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PONDER_CACHE", "/dev/null/nowhere")
    with files.exclusively(tmp_path / "one"):
        files.write_bytes(tmp_path / "one", b"1")
    assert (tmp_path / "one").read_bytes() == b"1"


def test_names_of_others_are_no_leftovers(tmp_path: Path):
    machine = files.machine()
    elsewhere = ".x.elsewhere-999999-00ff00ff.partial"
    kept = [".hidden", "a.partial", f".x.{machine}-0x1.partial", elsewhere, ".old"]
    for name in kept:
        (tmp_path / name).touch()
    files.remove_leftovers(tmp_path)
    assert {one.name for one in tmp_path.iterdir()} == set(kept)
    files.remove_leftovers(tmp_path, owned=True)
    assert {one.name for one in tmp_path.iterdir()} == set(kept) - {elsewhere}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "one"
    files.write_bytes(path, b"old")
    with pytest.raises(OutputError, match=r"cannot write .*one: No space"), files.replacement(path) as place:
        place.write_bytes(b"half")
        raise OSError(28, "No space left on device")
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_a_name_of_255_bytes_can_be_written(tmp_path: Path):
    path = tmp_path / ("ü" * 127 + "x")
    files.write_bytes(path, b"1")
    assert path.read_bytes() == b"1" and len(list(tmp_path.iterdir())) == 1


def test_a_pipe_is_written_as_it_is(tmp_path: Path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE)
    files.write_bytes(path, b"through")
    assert reader.communicate(timeout=60)[0] == b"through" and path.is_fifo()


def test_a_folder_in_the_place_of_a_file_is_reported_and_stays(tmp_path: Path):
    (tmp_path / "one").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        files.write_bytes(tmp_path / "one", b"")
    assert [one.name for one in tmp_path.iterdir()] == ["one"]


def test_a_second_name_is_the_same_file(tmp_path: Path):
    files.write_bytes(tmp_path / "one", b"same")
    for _ in range(2):  # the second time both names are one file already
        files.share_file(tmp_path / "one", tmp_path / "two")
    assert os.path.samefile(tmp_path / "one", tmp_path / "two") and len(list(tmp_path.iterdir())) == 2


def _digest(folder: Path) -> str:
    return files.digest_of_files((str(one.relative_to(folder)), one) for one in files.files_below(folder))


def test_the_digest_of_a_folder_follows_content_and_names_but_no_times(tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "pose.txt").write_text("1 0 0")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_bytes(b"12")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "nowhere").symlink_to("not there")
    (folder / "loop").symlink_to(".")
    before = _digest(folder)
    os.utime(folder / "a", (1, 1))
    assert _digest(shutil.copytree(folder, tmp_path / "copy", symlinks=True)) == before
    seen = {before}
    for change in (
        lambda: (folder / "a").write_bytes(b"13"),
        lambda: (folder / "a").rename(folder / "b"),
        lambda: (elsewhere / "pose.txt").write_text("1 0 1"),
        lambda: (folder / "nowhere").unlink(),
        lambda: (folder / "empty").touch(),
    ):
        change()
        assert _digest(folder) not in seen
        seen.add(_digest(folder))


def test_file_boundaries_count():
    assert files.digest_of_files([], "ab", "c") != files.digest_of_files([], "a", "bc")


def test_the_digest_of_a_file_is_its_sha256(tmp_path: Path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.digest_of_file(tmp_path / "abc") == expected


def test_the_cache_folder_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PONDER_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    monkeypatch.setenv("HOME", "/c")
    assert files.cache_folder() == Path("/a")
    monkeypatch.delenv("PONDER_CACHE")
    assert files.cache_folder() == Path("/b/ponder")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert files.cache_folder() == Path("/c/.cache/ponder")


def test_no_time_of_a_file_is_asked_for_anywhere():
    """Copies, checkouts and clocks change times: whether something is unchanged is decided by content."""
    times = re.compile(r"st_[mc]time|getmtime|getctime|\butime\(")
    sources = [path for root in ("ponderv2", "ponder_cli") for path in (PROJECT / root).rglob("*.py")]
    assert len(sources) > 100
    assert [path for path in sources if times.search(path.read_text("utf-8"))] == []
