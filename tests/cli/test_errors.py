"""Mistakes of users and internal errors: the message and the exit status."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ponder_cli import app as program
from ponder_cli.app import main
from ponderv2.errors import Interrupted, SceneError


def test_a_misspelt_preset_suggests_the_near_one(run):
    result = run("pretrain", "--preset", "dmeo")
    assert result.exit_code == 2
    assert "no pretrain preset called 'dmeo'" in result.stderr
    assert "--preset demo" in result.stderr


def test_a_misspelt_source_suggests_the_command(run):
    assert "ponder prepare rgbd" in run("prepare", "rgdb").stderr


def test_an_unknown_preset_lists_what_there_is(run):
    message = run("pretrain", "--preset", "zzzzzz").stderr
    assert "there are:" in message and " demo, " in message


@pytest.mark.parametrize(
    ("setting", "suggestion"),
    [
        ("training.stepz=3", "training.steps"),
        ("steps=3", "training.steps"),
        ("model.encoder.chanels=[1]", "model.encoder.channels"),
        ("data.augment.0.kidn=flip", "data.augment.0.kind"),
        ("training.optimiser.kind=sdg", "training.optimiser.kind=sgd"),
        ("training.precision=bf61", "training.precision=bf16"),
    ],
)
def test_a_misspelt_setting_suggests_the_near_one(run, setting, suggestion):
    result = run("presets", "show", "pretrain/demo", "--set", setting)
    assert result.exit_code == 2
    assert suggestion in result.stderr.splitlines()[1]


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("training.steps=-1", "greater than or equal to 0, not -1"),
        ("training.steps=many", "valid integer"),
        ("training.batch_size=99999999999", "less than or equal to 65536"),
        ("data.voxel.size=.inf", "finite number"),
        ("data.voxel.size=.nan", "finite number"),
        ("training.steps=[1", "not YAML"),
        ("training.steps", "KEY=VALUE"),
        ("data.augment.99.kind=flip", "there is nothing at '99'"),
        ("data.features=[color]", "in_channels"),
    ],
)
def test_a_wrong_value_is_named_with_the_reason(run, setting, reason):
    result = run("presets", "show", "pretrain/demo", "--set", setting)
    assert result.exit_code == 2
    assert reason in result.stderr


def test_a_mistake_in_a_file_is_named_with_its_line(run, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: demo\ntraining:\n  steps: 5\n  batchsize: 2\n")
    result = run("presets", "show", "pretrain", file)
    assert result.exit_code == 2
    assert f"{file}:4" in result.stderr and "training.batch_size" in result.stderr


def test_an_option_of_another_data_set_is_named_as_typed(run):
    result = run("prepare", "synthetic", "--layout", "tum")
    assert result.exit_code == 2
    assert "--layout does not apply to 'synthetic'" in result.stderr


@pytest.mark.parametrize(
    ("place", "reason"), [("folder", "Is a directory"), ("file/x.json", "Not a directory")]
)
def test_a_json_file_that_cannot_be_written_is_said_before_the_work(run, tmp_path, place, reason):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    result = run(
        "prepare", "synthetic", "--rooms", "1", "--out", tmp_path / "rooms", "--json", tmp_path / place
    )
    assert result.exit_code == 2
    assert f"cannot write {tmp_path / place}: {reason}" in result.stderr
    assert not (tmp_path / "rooms").exists()


def test_wrong_usage_has_exit_status_2(run):
    assert run("pretrain", "--no-such-option").exit_code == 2
    assert run("finetune").exit_code == 2
    assert run("render", "model.pth").exit_code == 2


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--protocol", "linaer"), "one of full, decoder, linear"),
        (("--protocol", "full", "--linear-probe"), "give one"),
    ],
)
def test_a_protocol_that_does_not_exist_or_contradicts_is_refused(run, words, reason):
    result = run("finetune", "--scratch", *words)
    assert result.exit_code == 2 and reason in result.stderr


@pytest.fixture
def failing(monkeypatch):
    """A command that raises what it is given."""

    def install(problem: BaseException) -> None:
        def fail() -> tuple[()]:
            raise problem

        monkeypatch.setattr("ponder_cli.health.examine", fail)

    return install


def test_a_users_mistake_is_two_lines_without_traceback(run, failing):
    failing(SceneError("no prepared scenes in runs[/x]", fix="ponder prepare synthetic --out runs[/x]"))
    result = run("doctor")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-2:] == [
        "error: no prepared scenes in runs[/x]",
        "  try: ponder prepare synthetic --out runs[/x]",
    ]


def test_a_library_that_is_missing_is_named_with_the_command_that_examines(run, failing):
    failing(ModuleNotFoundError("No module named 'open3d'", name="open3d"))
    result = run("doctor")
    assert result.exit_code == 2
    assert "open3d" in result.stderr.splitlines()[-2] and "ponder doctor" in result.stderr.splitlines()[-1]


def test_our_mistake_is_one_line_with_the_log(run, failing, tmp_path, monkeypatch):
    monkeypatch.setattr(program.tempfile, "gettempdir", lambda: str(tmp_path))
    failing(ZeroDivisionError("[bold]division by zero"))
    result = run("doctor")
    (log,) = tmp_path.glob("ponder-error-*.log")
    assert result.exit_code == 1
    assert "Traceback" not in result.stderr
    assert "internal error: ZeroDivisionError: [bold]division by zero" in result.stderr.splitlines()[-1]
    assert str(log) in result.stderr
    assert "Traceback" in log.read_text()


def test_debug_shows_the_traceback(run, failing):
    failing(SceneError("broken"))
    result = run("--debug", "doctor")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr and "error: broken" in result.stderr


def test_debug_is_understood_behind_the_command_too(failing, capfd):
    failing(SceneError("broken"))
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--debug"])
    assert end.value.code == 2
    assert "Traceback" in capfd.readouterr().err


def test_ctrl_c_ends_with_130(run, failing):
    failing(KeyboardInterrupt())
    assert run("doctor").exit_code == 130


def test_an_interrupted_run_says_how_to_continue(run, failing):
    failing(Interrupted("stopped after step 3", fix="the same command with --resume", exit_status=143))
    result = run("doctor")
    assert result.exit_code == 143
    assert result.stderr.splitlines()[-2:] == [
        "stopped after step 3",
        "to continue: the same command with --resume",
    ]


def test_a_path_that_the_terminal_cannot_show_does_not_end_the_program(tmp_path):
    name = "räume-\udcff[/x]"
    done = subprocess.run(
        [sys.executable, "-m", "ponder_cli", "presets", "show", "pretrain", f"{tmp_path}/{name}.yaml"],
        capture_output=True,
        env={"PYTHONIOENCODING": "ascii", "PATH": ""},
        check=False,
    )
    assert done.returncode == 2
    assert b"no preset file" in done.stderr and b"[/x]" in done.stderr


def test_a_long_list_of_files_is_shown_by_its_ends(capsys):
    from ponder_cli import console

    console.show_result({"pictures": [f"view-{i}.png" for i in range(24)], "channels": list(range(8))})
    shown = capsys.readouterr().out
    assert "view-0.png, ..., view-23.png (24 of them)" in shown
    assert "0, 1, 2, 3, 4, 5, 6, 7" in shown


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of other systems")
@pytest.mark.parametrize(
    "words", [["presets"], ["--help"], ["pretrain", "--help"], ["prepare", "rgbd", "--help"]]
)
def test_a_reader_that_leaves_is_no_error(words: list[str]):
    """`ponder presets | head`: the rest is dropped, without a message."""
    code = f"import sys; from ponder_cli.app import main; sys.stdin.read(1); main({words})"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    child = subprocess.Popen([sys.executable, "-c", code], text=True, **pipes)
    assert child.stdin is not None and child.stdout is not None and child.stderr is not None
    child.stdout.close()
    child.stdin.write("x")
    child.stdin.close()
    assert child.wait(timeout=60) == 1
    assert child.stderr.read() == ""
