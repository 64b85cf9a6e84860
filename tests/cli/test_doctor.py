"""`ponder doctor` on installations that are broken in known ways."""

from __future__ import annotations

import subprocess

import pytest

from ponder_cli import health


@pytest.fixture
def machine(monkeypatch):
    """Answers of the processes that import libraries, by a word of their code; and installed versions."""

    def pretend(
        answers: dict[str, tuple[int, str, str]], versions: dict[str, str]
    ) -> dict[str, health.Finding]:
        def run(code: str) -> subprocess.CompletedProcess[str]:
            for word, (status, out, error) in answers.items():
                if word in code:
                    return subprocess.CompletedProcess([], status, out, error)
            return subprocess.CompletedProcess([], 0, "none | \n", "")

        def version(names: tuple[str, ...]) -> str | None:
            return next((versions[name] for name in names if name in versions), None)

        monkeypatch.setattr(health, "_run", run)
        monkeypatch.setattr(health, "_version", version)
        monkeypatch.setattr(health.util, "find_spec", lambda name: object())
        return {finding.name: finding for finding in health.examine()}

    return pretend


def test_a_cpu_build_is_told_from_a_missing_driver(machine):
    assert "built for the CPU" in machine({"torch.cuda": (0, "none | \n", "")}, {})["gpu"].detail
    assert "no GPU or driver" in machine({"torch.cuda": (0, "12.6 | \n", "")}, {})["gpu"].detail
    assert machine({"torch.cuda": (0, "12.6 | H200\n", "")}, {})["gpu"].state == "ok"


def test_open3d_without_libusb_names_the_package_that_brings_it(machine):
    broken = {"load_open3d": (1, "", "OSError: libusb-1.0.so.0: cannot open shared object file")}
    found = machine(broken, {"open3d-cpu": "0.20.0"})["open3d-cpu"]
    assert found.state == "broken" and found.fix == "pip install libusb-package"
    assert not found.required


def test_a_missing_open3d_names_its_extra(machine):
    found = machine({}, {})["open3d-cpu"]
    assert (found.state, found.fix, found.required) == ("missing", 'pip install "ponder[open3d]"', False)


def test_spconv_killed_by_numpy_2_names_the_fix(machine):
    found = machine({"spconv": (-11, "", "")}, {"spconv-cu120": "2.3.6", "numpy": "2.4.6"})["spconv-cu120"]
    assert found.state == "broken" and "signal 11" in found.detail
    assert found.fix == 'pip install "numpy<2"'


def test_a_missing_extra_names_what_it_brings_and_how_to_get_it(machine):
    found = machine({}, {})["spconv-cu120"]
    assert (found.state, found.fix) == ("missing", 'pip install "ponder[cuda]"')
    assert "GPU" in found.detail and not found.required


def test_a_missing_base_library_ends_with_status_2(run, machine):
    machine({}, {})
    assert run("doctor").exit_code == 2
