"""A file that promises what it does not hold is refused by its header, before memory is taken for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.campaigns.faults.lying_headers import CASES
from tests.conftest import PROJECT

MOST_MB = 64.0


def test_every_lying_header_is_refused_within_64_mb(tmp_path: Path):
    """In a process of its own, which can tell its highest memory."""
    words = [sys.executable, "-m", "tests.campaigns.faults.lying_headers", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=PROJECT)
    assert done.returncode == 0, done.stderr[-2000:]
    found = {one["case"]: one for one in json.loads(done.stdout)}
    assert set(found) == set(CASES)
    assert [case for case, one in found.items() if not one["refused"]] == []
    assert [(case, one["grown_mb"]) for case, one in found.items() if one["grown_mb"] > MOST_MB] == []
