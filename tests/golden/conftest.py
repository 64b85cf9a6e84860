"""One test per golden case of its kind; the kind follows from the content of the file."""

from __future__ import annotations

import pytest

from tests.golden.cases import find_cases


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test module names its kind in KIND and takes the argument `case`."""
    if "case" not in metafunc.fixturenames:
        return
    folder = metafunc.config.getoption("--golden-dir")
    kind = metafunc.module.KIND
    found = find_cases(folder, kind)
    if found:
        metafunc.parametrize("case", found, ids=[case.name for case in found], scope="module")
    else:
        reason = f"no golden case of kind '{kind}' in {folder}; choose a folder with --golden-dir"
        metafunc.parametrize("case", [pytest.param(None, marks=pytest.mark.skip(reason=reason))])
