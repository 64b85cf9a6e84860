"""Shared by all tests: options, one seed, few threads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch, as the program does

import pytest
import torch

PROJECT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where optional reference numbers and sample recordings are, when they are there at all."""
    shared = PROJECT.parent / "shared"
    parser.addoption(
        "--statedict-dir",
        type=Path,
        default=shared / "reference" / "statedict",
        help="folder of the names and shapes of published state dicts",
    )
    compact = PROJECT / "tests" / "golden" / "data"
    parser.addoption("--golden-dir", type=Path, default=compact, help="folder of golden .npz cases")
    parser.addoption(
        "--sample-data", type=Path, default=shared / "data", help="folder of small real recordings"
    )
    parser.addoption("--cases", type=Path, default=shared / "cases", help="folder of makers of odd files")


@pytest.fixture(autouse=True)
def seed() -> None:
    """Nothing should read the global generator; what does is at least repeatable."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is kept between runs (normals, lists of frames) goes into a folder of the tests."""
    os.environ["PONDER_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def rng() -> torch.Generator:
    """The one source of randomness of a test."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def make_case(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Path]:
    """Runs a maker of odd files, by the beginning of its name, and gives the folder of what it made.

    The test is skipped where there are no makers.
    """
    folder = request.config.getoption("--cases")

    def make(start: str) -> Path:
        maker = next(folder.glob(f"{start}*/make.py"), None)
        if maker is None:
            pytest.skip(f"no makers of odd files in {folder}; choose a folder with --cases")
        environment = {**os.environ, "CASES_OUT": str(tmp_path / "cases")}
        subprocess.run([sys.executable, str(maker)], check=True, env=environment, capture_output=True)
        return tmp_path / "cases" / maker.parent.name

    return make


@pytest.fixture
def sample_data(request: pytest.FixtureRequest) -> Path:
    """Folder of small real recordings; the test is skipped where there is none."""
    folder = request.config.getoption("--sample-data")
    if not folder.is_dir():
        pytest.skip(f"no sample recordings in {folder}; choose a folder with --sample-data")
    return folder
