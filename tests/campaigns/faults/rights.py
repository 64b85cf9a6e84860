"""A process of the administrator that has to obey the permissions of files, as everybody else."""

from __future__ import annotations

import ctypes
import os

_VERSION_3 = 0x20080522


def obey_permissions() -> None:
    """Gives up the right to pass over them (Linux capabilities); ordinary users never had it."""
    if os.geteuid() != 0:
        return
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")
