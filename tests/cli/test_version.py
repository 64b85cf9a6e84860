"""`ponder --version` names the commit of a checkout, and only of a checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def version_in(folder: Path) -> str:
    """What a copy of the package in `folder` calls itself."""
    (folder / "ponderv2").mkdir(exist_ok=True)
    shutil.copy(ROOT / "ponderv2" / "version.py", folder / "ponderv2")
    code = "from version import describe_version; print(describe_version())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder / "ponderv2", capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_checkout_names_its_commit_and_whether_files_differ(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(
            ["git", *identity, *words], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    git("init", "--quiet")
    (tmp_path / ".gitignore").write_text("__pycache__\n")
    version_in(tmp_path)
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    git("tag", "a-tag-is-no-commit")
    commit = git("rev-parse", "--short=10", "HEAD")
    assert version_in(tmp_path) == f"0.1.0 (commit {commit})"
    (tmp_path / ".gitignore").write_text("__pycache__\nmore\n")
    assert version_in(tmp_path) == f"0.1.0 (commit {commit}, modified)"


def test_an_installed_package_has_no_commit(tmp_path: Path) -> None:
    assert version_in(tmp_path) == "0.1.0"
