"""Puts the presets, from the top of the repository, into the wheel. The rest is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithPresets(build_py):
    """Copies presets/ to ponder_cli/preset_files; an editable install reads presets/ itself."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "ponder_cli" / "preset_files"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(Path(__file__).parent / "presets", target)


setup(cmdclass={"build_py": BuildWithPresets})
