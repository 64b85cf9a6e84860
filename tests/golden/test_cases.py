"""Every file of the folder is read by a module of tests, or says why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.golden.cases import KIND_OF_TYPE, Case, all_cases, seeded_normal

READ = {*KIND_OF_TYPE.values(), "PG-v1m1", "instance_precision", "unit_cube", "transforms"}
"""Kinds that a module beside this one has as its KIND."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "file" in metafunc.fixturenames:
        found = all_cases(metafunc.config.getoption("--golden-dir"))
        metafunc.parametrize("file", found, ids=[case.name for case in found])


def test_the_kinds_are_those_of_the_modules() -> None:
    """A module that is added, or a kind that nobody reads, changes READ."""
    texts = [path.read_text() for path in Path(__file__).parent.glob("test_*.py")]
    kinds = {text.split('KIND = "')[1].split('"')[0] for text in texts if '\nKIND = "' in text}
    assert kinds == READ


def test_every_file_is_read_or_reported(file: Case) -> None:
    if file.kind == "no meta":
        pytest.skip(f"{file.path.name} has no meta: a workload, with nothing to compare")
    if file.kind not in READ:
        pytest.skip(f"{file.path.name}: no tests read cases of the kind '{file.kind}'")
    assert any(name.startswith("out_") for name in file.names)


def test_the_weight_rule_gives_the_published_sums(file: Case) -> None:
    if "param_abs_sum" not in file.arrays:
        pytest.skip(f"{file.path.name} has no weights")
    from tests.golden.cases import golden_state

    state = golden_state(file)
    for name, total in zip(file.arrays["param_names"], file.arrays["param_abs_sum"], strict=True):
        if str(name) in state:
            assert float(state[str(name)].double().abs().sum()) == pytest.approx(float(total), rel=1e-6)


def test_seeded_numbers_are_those_of_the_written_rule() -> None:
    """Worked out by hand: SHA-256 of the text, its first 8 bytes little-endian, PCG64, float32."""
    seed = 0x8B9F6CB8A43DC616
    expected = np.random.Generator(np.random.PCG64(seed)).standard_normal(3, dtype=np.float32)
    assert seeded_normal("cotangent", (3,)).tolist() == expected.tolist()
