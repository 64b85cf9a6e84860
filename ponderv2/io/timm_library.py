"""timm (PyTorch Image Models): imported where it is used, as it takes seconds and is an extra."""

from __future__ import annotations

from difflib import get_close_matches
from types import ModuleType

from ponderv2.errors import PresetError, ResourceError
from ponderv2.torchvision_operators import repair_torchvision

INSTALL = 'pip install "ponder[timm]"'


def load_timm() -> ModuleType:
    """The library, imported beside any torchvision. Raises ResourceError where it is not installed."""
    repair_torchvision()
    try:
        import timm  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ResourceError(f"networks of timm need the package timm ({error})", fix=INSTALL) from error
    return timm


def check_timm_name(timm: ModuleType, name: str, prefix: str = "") -> None:
    """Raises PresetError for a network that timm does not know; `prefix`: of the name that the fix gives."""
    if timm.is_model(name):
        return
    near = get_close_matches(name.partition(".")[0], timm.list_models(), n=1)
    raise PresetError(
        f"timm {timm.__version__} knows no network '{name}'", fix=f"{prefix}{near[0]}" if near else None
    )
