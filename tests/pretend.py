"""A device that computes on the CPU, but refuses what a GPU would refuse.

Its tensors hold tensors of the CPU. As with a GPU, an operation on tensors of both devices is an
error (numbers and indices aside), and so is looking at one through numpy.
"""

import contextlib
import contextvars
import functools

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
_refused = contextvars.ContextVar("types that the device has not", default=())
aten = torch.ops.aten
# from one device to another, and indices, may be mixed
MIXED = {
    aten._to_copy,
    aten.copy_,
    aten.index,
    aten.index_put_,
    aten.index_put,
    aten._index_put_impl_,
}
PRODUCTS = {torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.Tensor.__rmatmul__}


class Pretended(torch.Tensor):
    """A tensor of the device; `inner` is the one of the CPU that it stands for."""

    @staticmethod
    def __new__(cls, inner):
        if inner.dtype in _refused.get():
            raise TypeError(f"the device has no float64: it cannot hold a tensor of {inner.dtype}")
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
        )

    def __init__(self, inner):
        self.inner = inner

    def data_ptr(self):
        return self.inner.data_ptr()

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func in PRODUCTS:  # they change the shape of a tensor in place, which cannot be here
            return run(func, args, kwargs or {})
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


class _Factories(TorchDispatchMode):
    """Operations that make a tensor of the device from none."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


def run(func, args, kwargs):
    """One operation, on the tensors of the CPU behind the device's."""
    flat, _ = tree_flatten((args, kwargs))
    ours = [x for x in flat if isinstance(x, Pretended)]
    others = [x for x in flat if isinstance(x, torch.Tensor) and not isinstance(x, Pretended)]
    packet = getattr(func, "overloadpacket", func)
    if ours and any(x.ndim for x in others) and packet not in MIXED:
        raise RuntimeError(f"{func}: expected all tensors to be on the same device")
    wanted = kwargs.get("device")
    inside = bool(ours) if wanted is None else torch.device(wanted).type == NAME
    if inside and packet in (aten.index_add, aten.index_add_):
        raise RuntimeError(f"{func} adds in any order on a GPU")
    if wanted is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    if packet is aten.copy_:
        inside = isinstance(args[0], Pretended)
    plain = tree_map(lambda x: x.inner if isinstance(x, Pretended) else x, (args, kwargs))
    result = func(*plain[0], **plain[1])
    known = {id(x.inner): x for x in ours}

    def back(x):
        if not isinstance(x, torch.Tensor):
            return x
        return known.get(id(x)) if id(x) in known else Pretended(x) if inside else x

    return tree_map(back, result)


@functools.cache
def _register():
    _setup_privateuseone_for_python_backend(NAME)


@contextlib.contextmanager
def pretended(float64=True):
    """The device, which exists within this context; gives its torch.device. It may have no float64,
    as Apple's have none."""
    _register()
    _refused.set(() if float64 else (torch.float64, torch.complex128))
    try:
        with _Factories():
            yield torch.device(NAME, 0)
    finally:
        _refused.set(())
