"""Layers of `torch.nn` that run the kernels, and their exchange for torch's own in a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from cifar_cli.kernels import library
from cifar_cli.kernels.convolution import convolve
from cifar_cli.kernels.layer import best_m
from cifar_cli.kernels.relu_dropout import SPARSE, relu_dropout_


def accelerate(model: nn.Module, *, convolutions: bool = True, cache: Path | None = None) -> None:
    """Have a model's layers run by the kernels on a CPU, in place.

    In each `nn.Sequential`, subclasses too unless they run their layers themselves, ReLU and
    dropout are done together. Convolutions 3x3 go by Winograd's minimal filtering if that is
    estimated to be faster, together with the max-pooling after them. Only classes of layers
    change, to subclasses: parameters, state_dict, hooks and what is computed, up to rounding and
    the draws of dropout, stay. torch's own layers run if anything is unusual: a hook, autocast, a
    GPU, `torch.compile`, `torch.export`, a FLOP counter. A second call only changes the settings.

    Args:
        model: Any.
        convolutions: Whether to exchange convolutions, in float32 and channels-last memory.
        cache: Folder where compiled code is kept, or compiled to in seconds; None: do without.
    """
    restore(model)
    compiled = cache is not None and library.load(cache)
    for layer in model.modules():
        if convolutions and type(layer) is nn.Conv2d and _is_supported(layer):
            layer.__class__ = Conv2d
            assert isinstance(layer, Conv2d)
            layer.compiled = compiled
    for layer in model.modules():
        if isinstance(layer, nn.Sequential) and any(map(_can_fuse, layer, list(layer)[1:])):
            layer.__class__ = _fused_class(type(layer))


def restore(model: nn.Module) -> None:
    """Undo `accelerate`: torch's own layers, in place."""
    for layer in model.modules():
        if isinstance(layer, Conv2d):
            layer.__class__ = nn.Conv2d  # type: ignore[assignment]
            del layer.compiled
        elif isinstance(layer, _FusedPairs):
            layer.__class__ = layer.plain_class  # type: ignore[assignment]


def uses_compiled_code(model: nn.Module) -> bool:
    """Whether any layer of a model does."""
    return any(layer.compiled for layer in model.modules() if isinstance(layer, Conv2d))


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` 3x3 by Winograd's minimal filtering."""

    compiled: bool
    """Whether compiled code may be used, which is loaded then."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H, W)."""
        out = self._convolved(x, pool=False)
        return super().forward(x) if out is None else out

    def pooled(self, x: Tensor) -> Tensor | None:
        """(B, out_channels, H // 2, W // 2), max-pooled; None if that is not faster in one."""
        return self._convolved(x, pool=True)

    def _convolved(self, x: Tensor, *, pool: bool) -> Tensor | None:
        if not self._is_usual(x):
            return None
        sizes = (*x.shape[2:], self.in_channels, self.out_channels)
        m = best_m(*sizes, compiled=self.compiled, pool=pool)
        if m is None:
            return None
        return convolve(x, self.weight, m, self.padding_mode, pool=pool, compiled=self.compiled)

    def _is_usual(self, x: Tensor) -> bool:
        return (
            _is_supported(self)
            and _is_plain(x)
            and x.dtype == torch.float32
            and x.is_contiguous(memory_format=torch.channels_last)
            and min(x.shape[2:]) > 1
            and len(x) > 0
            and not torch.is_autocast_enabled("cpu")
        )


class _FusedPairs(nn.Sequential):
    """A sequence in which a convolution runs with the max-pooling after it, ReLU with dropout."""

    plain_class: type[nn.Sequential] = nn.Sequential

    def forward(self, x: Tensor) -> Tensor:
        layers: list[nn.Module] = list(self)
        while layers:
            out = _run_pair(layers[0], layers[1], x) if len(layers) > 1 else None
            used = 1 if out is None else 2
            x = layers[0](x) if out is None else out
            layers = layers[used:]
        return x

    def __reduce_ex__(self, protocol: Any) -> tuple[Callable[..., Any], tuple[Any, ...], Any]:
        # By the plain class, as pickle finds no class that was made while the program runs.
        return _new_fused, (self.plain_class,), self.__dict__


_fused_classes: dict[type[nn.Sequential], type[_FusedPairs]] = {}


def _fused_class(plain: type[nn.Sequential]) -> type[_FusedPairs]:
    """A subclass of the same name. If `plain` has a `forward`, its `super().forward` runs pairs."""
    if plain not in _fused_classes:
        bases = (_FusedPairs,) if plain is nn.Sequential else (plain, _FusedPairs)
        own = {"plain_class": plain, "__module__": plain.__module__, "__doc__": plain.__doc__}
        _fused_classes[plain] = type(plain.__name__, bases, own)
    return _fused_classes[plain]


def _new_fused(plain: type[nn.Sequential]) -> nn.Sequential:
    kind = _fused_class(plain)
    return kind.__new__(kind)


def _can_fuse(first: nn.Module, second: nn.Module) -> bool:
    if isinstance(first, Conv2d):
        return type(second) is nn.MaxPool2d and _halves(second)
    return type(first) is nn.ReLU and first.inplace and type(second) is nn.Dropout


def _run_pair(first: nn.Module, second: nn.Module, x: Tensor) -> Tensor | None:
    """What comes out of both layers; None if they are to run one after the other."""
    if not (_can_fuse(first, second) and _is_plain(x) and _has_no_hooks(first, second)):
        return None
    if isinstance(first, Conv2d):
        return first.pooled(x)
    assert isinstance(second, nn.Dropout)
    if not (second.training and 0 < second.p <= SPARSE and _is_dense(x)):
        return None
    return relu_dropout_(x, second.p)


def _is_supported(layer: nn.Conv2d) -> bool:
    return (
        layer.kernel_size == (3, 3)
        and layer.padding == (1, 1)
        and layer.stride == layer.dilation == (1, 1)
        and layer.groups == 1
        and layer.bias is None
        and layer.padding_mode in ("zeros", "reflect")
    )


def _halves(layer: nn.MaxPool2d) -> bool:
    sizes = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    return sizes == (2, 2, 0, 1) and not (layer.ceil_mode or layer.return_indices)


def _is_plain(x: Tensor) -> bool:
    """Whether it is a tensor on a CPU, and nobody watches or transforms what is done with it."""
    return (
        type(x) in (Tensor, nn.Parameter)
        and x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and not torch._C._len_torch_dispatch_stack()
        and not torch._C._are_functorch_transforms_active()
    )


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)


def _has_no_hooks(*layers: nn.Module) -> bool:
    """Whether nobody looks at these layers' inputs and outputs, so that they need not be called."""
    watches_all = _has_any_global_hook()  # type: ignore[no-untyped-call]
    return not watches_all and not any(
        layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks
        or layer._backward_pre_hooks
        for layer in layers
    )  # fmt: skip
