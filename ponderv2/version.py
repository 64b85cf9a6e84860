"""The version, and in a checkout its commit. Importing this imports nothing else."""

__version__ = "0.1.0"


def describe_version() -> str:
    """`0.1.0`, in a git checkout `0.1.0 (commit 1a2b3c4d5e)`, and `, modified` where files differ."""
    import subprocess
    from pathlib import Path

    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return __version__
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=10", "--exclude=*", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return __version__
    commit, _, modified = done.stdout.strip().partition("-")
    return f"{__version__} (commit {commit}{', modified' if modified else ''})"
