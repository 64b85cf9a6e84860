"""Every twenty-third fault of drives; all of them with `python -m tests.campaigns.faults.bad_drives`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns.faults.bad_drives import DRIVES, faults_of, reports_of, unreported

EVERY = 23


@pytest.mark.parametrize("name", DRIVES)
def test_faults_of_drives_are_refused_by_name_or_reported(name: str, tmp_path: Path) -> None:
    drives, faults = DRIVES[name], faults_of(name)
    known = reports_of(drives, drives.files(), tmp_path / "sound")
    assert len(faults) > 40
    wrong = {
        fault.name: why
        for fault in faults[len(name) % EVERY :: EVERY]
        if (why := unreported(drives, fault, known, tmp_path / "broken")[0])
    }
    assert not wrong
