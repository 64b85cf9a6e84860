"""Files by the names in a list: backslashes, other case, no ending, paths of another machine."""

from __future__ import annotations

import unicodedata
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

LONGEST_TAIL = 3
"""Parts of an absolute path that are looked for below the folder."""


class NamedFiles:
    """Finds files below one folder by the names that a list gives; remembers how, for the report."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rules: list[str] = []
        """How names were understood where they were not exact, each once."""
        self._listings: dict[Path, dict[str, list[Path]]] = {}

    def find(self, name: str, endings: tuple[str, ...]) -> Path | None:
        """The file, None when there is none. `endings` are tried where the name has none, or another one.

        The exact name counts first, then `/` in place of `\\`, then the end of an absolute path, then the
        name in other case, then the same stem with another ending. What is ambiguous is not found.
        """
        exact = self.root / name
        if _is_file(exact):
            return exact
        for text, rule in self._spellings(name):
            found = self._below(text, endings)
            if found is not None:
                path, how = found
                self._remember(rule)
                self._remember(how)
                return path
        return None

    def wanted(self, name: str) -> Path:
        """Where the file should be, for a message."""
        return self.root / name.replace("\\", "/")

    def _spellings(self, name: str) -> list[tuple[str, str]]:
        """Ways to read a name, and what to say of each; the folder is never left upwards by a guess."""
        found = [(name, "")]
        slashed = name.replace("\\", "/")
        rule = "'\\' in names of files read as '/'" if slashed != name else ""
        if slashed != name:
            found.append((slashed, rule))
        if "%" in slashed:
            found.append(
                (unquote(slashed), "names of files read as those of web addresses (%20 for a blank)")
            )
        parts = [part for part in PurePosixPath(slashed).parts if part not in ("/", ".", "..")]
        if slashed.startswith(("/", "../", "~")) or slashed[1:3] == ":/":
            for count in range(min(LONGEST_TAIL, len(parts)), 0, -1):
                tail = "/".join(parts[-count:])
                found.append((tail, f"absolute paths: their last {count} parts were looked for here"))
        return found

    def _below(self, text: str, endings: tuple[str, ...]) -> tuple[Path, str] | None:
        path = self.root / text
        if _is_file(path):
            return path, ""
        for ending in endings:
            if _is_file(Path(f"{path}{ending}")):
                return Path(f"{path}{ending}"), ""
        folder = self._folder(path.parent)
        if folder is None:
            return None
        names = self._listing(folder)
        low = _folded(path.name)
        same = names.get(low, [])
        if len(same) == 1:
            return same[0], "upper and lower case in names of files ignored"
        with_ending = [one for ending in endings for one in names.get(low + ending, [])]
        if len(with_ending) == 1:
            return with_ending[0], "upper and lower case in names of files ignored"
        if path.suffix.lower() in endings:
            stem = low.removesuffix(_folded(path.suffix))
            others = [one for ending in endings for one in names.get(stem + ending, [])]
            if len(others) == 1:
                how = f"{path.suffix} in names of files is {others[0].suffix} on disk"
                return others[0], how
        return None

    def _folder(self, folder: Path) -> Path | None:
        """The folder, also in other case, one level below the root or deeper."""
        try:
            if folder.is_dir():
                return folder
            parts = folder.relative_to(self.root).parts
        except (OSError, ValueError):
            return None
        here = self.root
        for part in parts:
            near = [one for one in self._listing(here).get(_folded(part), []) if one.is_dir()]
            if len(near) != 1:
                return None
            here = near[0]
        return here

    def _listing(self, folder: Path) -> dict[str, list[Path]]:
        """Contents of a folder by folded name."""
        if folder not in self._listings:
            found: dict[str, list[Path]] = {}
            try:
                for one in sorted(folder.iterdir()):
                    found.setdefault(_folded(one.name), []).append(one)
            except OSError:
                pass
            self._listings[folder] = found
        return self._listings[folder]

    def _remember(self, rule: str) -> None:
        if rule and rule not in self.rules:
            self.rules.append(rule)


def _folded(name: str) -> str:
    """In lower case, letters with accents in one form: archives of macOS store them in two parts."""
    return unicodedata.normalize("NFC", name).lower()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no disk can hold
        return False
