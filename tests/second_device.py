"""A second device without the hardware: `meta` tensors that do hold numbers, and refuse to meet the CPU's.

What a GPU build would refuse ("expected all tensors to be on the same device") is refused here too, and the
results can be compared with those of the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "meta"
"""The only device besides the CPU that every build of torch knows."""
_MAY_MEET = ("aten.copy_", "aten._to_copy", "aten.index.", "aten.index_put")
"""Operations that take tensors of the CPU beside those of a device: copies, and indices."""


class OnDevice(Tensor):
    """A tensor of the CPU that says it is elsewhere."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnDevice:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME),
        )
        made.inner = inner
        return made

    def tolist(self) -> Any:
        """Numbers for Python, as from any device."""
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(func, args, kwargs or {})


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, OnDevice) else value


def _called(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    there = [one for one in tensors if isinstance(one, OnDevice)]
    here = [one for one in tensors if not isinstance(one, OnDevice) and one.dim() > 0]
    if there and here and not str(func).startswith(_MAY_MEET):
        raise RuntimeError(f"expected all tensors to be on the same device, got two at {func}")
    wanted = kwargs.get("device")
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    result = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    given = args[0] if args else None
    if str(func).split(".")[1].endswith("_") and isinstance(given, Tensor):
        return given  # changed in place
    out = kwargs.get("out")
    if isinstance(out, Tensor):
        return out
    if bool(there) if wanted is None else torch.device(wanted).type == NAME:
        return tree_map(lambda one: OnDevice(one) if isinstance(one, Tensor) else one, result)
    return result


class _Factories(TorchDispatchMode):
    """Makes `torch.zeros(3, device=...)` and `tensor.to(...)` yield such tensors."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(func, args, kwargs or {})


class _NewTensors(TorchFunctionMode):
    """`torch.tensor(numbers, device=...)` and `new_tensor`, which no dispatch sees."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and kwargs.get("device") is not None:
            return func(*args, **{**kwargs, "device": None}).to(kwargs["device"])
        if func is Tensor.new_tensor and isinstance(args[0], OnDevice):
            return args[0].inner.new_tensor(*args[1:], **kwargs).to(NAME)
        return func(*args, **kwargs)


def _known(real: Callable[..., Any], otherwise: Any) -> Callable[..., Any]:
    """Autocast knows no such device: it is off there."""

    def asked(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return otherwise if device_type == NAME else real(device_type, *args, **kwargs)

    return asked


@contextmanager
def second_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a device that computes."""
    with monkeypatch.context() as patch, _Factories(), _NewTensors(), torch.no_grad():
        patch.setattr(torch, "autocast", _known(torch.autocast, nullcontext()))
        patch.setattr(torch, "is_autocast_enabled", _known(torch.is_autocast_enabled, False))
        yield NAME
