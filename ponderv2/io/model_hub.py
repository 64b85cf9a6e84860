"""Downloads from the Hugging Face hub: only what was asked for by name; one message where it fails."""

from __future__ import annotations

import contextlib
import os
import urllib.error
import urllib.request
from collections.abc import Iterator

from ponderv2.errors import PresetError, ResourceError

SECONDS = 10.0
LOCAL = "a folder of the model in place of its name needs no network"


@contextlib.contextmanager
def downloading(name: str) -> Iterator[None]:
    """Turns what goes wrong in fetching a model, or in reading it from the hub's cache, into one message.

    Where the hub does not answer its cache alone is asked, at once: its own library would try for a minute.

    Raises:
        ResourceError: it is not in the cache and the hub cannot be reached.
        PresetError: the hub has no such model, or asks for a login.
    """
    answers = hub_answers()
    try:
        with contextlib.nullcontext() if answers else _offline():
            yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, AttributeError, TypeError) as error:
        kinds = {one.__name__ for one in type(error).__mro__}
        text = _reason(error)
        if kinds & {"GatedRepoError", "RepositoryNotFoundError"} or "is not a valid model identifier" in text:
            raise PresetError(
                f"the hub has no model '{name}' that this machine may read: {text}",
                fix=f"hf auth login, where the model asks for it; {LOCAL}",
            ) from error
        if not answers:
            raise ResourceError(
                f"'{name}' is not on this machine, and {endpoint()} cannot be reached", fix=LOCAL
            ) from error
        raise PresetError(f"cannot load '{name}': {text}", fix=LOCAL) from error


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    try:
        from huggingface_hub import constants
    except ImportError:
        yield
        return
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def endpoint() -> str:
    """Address of the hub: $HF_ENDPOINT or the public one."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def hub_answers() -> bool:
    """Whether the hub, or the proxy on the way to it, answers; false where it was switched off."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False
    address = endpoint()
    if not address.startswith(("https://", "http://")):
        return False
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:200]
