"""`import ponderv2`: quick, and every public name is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ponderv2


@pytest.mark.parametrize("name", ponderv2.__all__)
def test_every_public_name_is_found(name):
    assert getattr(ponderv2, name) is not None


def test_importing_the_library_does_not_load_torch():
    code = "import sys, ponderv2; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        ponderv2.laod  # noqa: B018
