"""A call of a flexified model: in the mode that is current when it begins, which its permanent hook reads.

The hook is the derived class of the model (derived.py). In a weak mode, layers of the mode are in place until the call
ends, also by an error; the latent is folded before the model's own ``forward``, and the output is unfolded after it.

``torch.compile`` leaves the functions here out and compiles what they call: one graph a mode. Gradient checkpointing
runs blocks again when the call is long over: a block remembers the mode that it ran in.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from flexivid.diffusion.process import Process
from flexivid.patching.shapes import PatchMode, Size3
from flexivid.pretrained.families.family import TRAIN_TIMES, Family, config_of, named_call
from flexivid.pretrained.weak_modes.affine import is_plain
from flexivid.pretrained.weak_modes.flexi import NATIVE, Flexi, WeakMode
from flexivid.pretrained.weak_modes.shadows import Registered, Shadows

REASON = "flexivid puts the layers of a mode in place outside of compiled graphs; compile the transformer itself"


ModeOfCall = Callable[[nn.Module, tuple, dict[str, Any]], str]  # (model, args, kwargs) -> "native" or a weak mode
_CHOICE: ContextVar[tuple[Flexi, ModeOfCall] | None] = ContextVar("mode_choice", default=None)


@contextmanager
def modes_from(flexi: Flexi, mode_of_call: ModeOfCall) -> Iterator[None]:
    """Let a function choose the mode of each call of a model in this thread, in the place of ``set_mode``."""
    token = _CHOICE.set((flexi, mode_of_call))
    try:
        yield
    finally:
        _CHOICE.reset(token)


def chooser_of(flexi: Flexi) -> ModeOfCall | None:
    """What chooses the modes of a model now, if not ``set_mode``."""
    owner, mode_of_call = _CHOICE.get() or (None, None)
    return mode_of_call if owner is flexi else None


def call_methods(base: type) -> dict[str, Any]:
    """Make the methods of the derived class of a flexified model: its permanent hook."""
    native_call, native_forward = base.__call__, base.forward  # type: ignore[attr-defined]

    @torch.compiler.disable(recursive=False, reason=REASON)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _dispatch(self, native_call, args, kwargs)

    @functools.wraps(native_forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        flexi = getattr(self, "flexi", None)
        if flexi is None or flexi.active is not None:
            return native_forward(self, *args, **kwargs)
        return _dispatch(self, native_forward, args, kwargs)

    return {"__call__": call, "forward": forward}


@torch.compiler.disable(recursive=False, reason=REASON)
def _dispatch(model: Any, native_call: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
    flexi: Flexi | None = getattr(model, "flexi", None)
    if flexi is None:
        return native_call(model, *args, **kwargs)
    with flexi.calls.lock:
        before = flexi.active
        try:
            flexi.active = _mode_of_call(flexi, model, args, kwargs)
            if flexi.active == NATIVE:
                return native_call(model, *args, **kwargs)
            call = _Call(model, flexi, args, kwargs)
            with call:
                output = native_call(model, *call.args, **call.kwargs)
            return call.unfold(output)
        finally:
            flexi.active = before


@torch.compiler.disable
def _mode_of_call(flexi: Flexi, model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> str:
    choose = chooser_of(flexi)
    return flexi.mode if choose is None else choose(model, args, kwargs)


class _Call:
    """One call in a weak mode: folds the arguments, puts layers in place, unfolds the output."""

    @torch.compiler.disable
    def __init__(self, model: nn.Module, flexi: Flexi, args: tuple, kwargs: dict[str, Any]) -> None:
        assert flexi.active is not None
        self.weak: WeakMode = flexi.modes[flexi.active]  # type: ignore[assignment]
        self.family = flexi.family
        flexi.follow(model)
        registered = Registered(model)
        refuse(registered, flexi, flexi.active)
        self.shadows = Shadows(registered, _layers(registered, flexi, flexi.active), self.weak.lists)
        call = named_call(model, args, kwargs)
        positional = list(call)[: len(args)]
        self.detail = _detail(model, flexi, self.weak.fold.native, call) if flexi.detail else None
        self.size: Size3 = self.family.fold_call(call, self.weak.fold)
        time, scale = call.get(self.family.signature.time), TRAIN_TIMES / self.family.signature.noise_time
        self.weak.embed.begin(time if time is None or scale == 1 else scale * time)  # 0 to 1000 as in diffusers
        self.args = tuple(call.pop(name) for name in positional)
        self.kwargs = call

    @torch.compiler.disable
    def __enter__(self) -> None:
        self.shadows.__enter__()

    @torch.compiler.disable
    def __exit__(self, *error: object) -> None:
        self.shadows.__exit__(*error)
        self.weak.embed.begin(None)

    @torch.compiler.disable
    def unfold(self, output: Any) -> Any:
        """Return the output in the size of the native one, in the same kind of container."""
        first = output if isinstance(output, Tensor) else output[0]
        sample = self.family.unfold_output(first, self.weak.fold, self.size)
        if self.detail is not None:
            sample = sample + self.detail.to(sample.dtype)
        if isinstance(output, Tensor):
            return sample
        if isinstance(output, tuple):
            return (sample, *output[1:])
        output.sample = sample
        return output


def process_of(model: nn.Module, family: Family) -> Process | None:
    """The process of a model, if its family knows it."""
    if family.signature.is_flow:
        return Process("flow", "velocity")
    names = family.signature.process(model)
    return None if names is None else Process(*names)


def _detail(model: nn.Module, flexi: Flexi, native: PatchMode, call: dict[str, Any]) -> Tensor:
    """What the process says of the detail of the noisy latent that large patches lose, in the layout of the output."""
    family, mode = flexi.family, flexi.active
    signature, process = family.signature, process_of(model, family)
    assert process is not None
    assert mode is not None
    time = call[signature.time]
    latent = signature.unpack(call[signature.latent], call)  # b c t h w
    if not isinstance(time, Tensor) or time.numel() not in (1, len(latent)):
        raise ValueError("got a time for each token; expected one a sample with flexify(detail=True); leave detail out")
    channels, outputs = family.channels(config_of(model))
    first = 1 if process.path != "flow" and signature.noise_time == TRAIN_TIMES else 0  # timestep k is time k + 1
    time = (time.float() + first) / signature.noise_time
    noisy = latent[:, : min(channels, outputs)].float()  # the rest is given
    return signature.pack(process.passed_detail(noisy, time, PatchMode(mode), native, channels=outputs))


def _layers(registered: Registered, flexi: Flexi, name: str) -> dict[str, nn.Module]:
    """All modules that answer in a mode, by path."""
    weak: WeakMode = flexi.modes[name]  # type: ignore[assignment]
    layers = weak.shadows | _merged(weak)
    if torch.is_grad_enabled():
        for path in block_paths(weak.lora_layers):
            block = weak.blocks.get(path) or weak.blocks.setdefault(path, WeakBlock(flexi, name, path))
            block.block = [registered[path]]  # type: ignore[assignment]
            layers[path] = block
    return layers


def _merged(weak: WeakMode) -> dict[str, nn.Module]:
    return {path: weak.merged[path.replace(".", "-")] for path in weak.lora_layers if weak.merged}


class WeakBlock(nn.Module):
    """A block that runs in one mode, also when gradient checkpointing runs it again after the call has ended."""

    def __init__(self, flexi: Flexi, mode: str, path: str) -> None:
        super().__init__()
        self.source = [flexi]  # in lists: both are registered elsewhere
        self.block: list[nn.Module] = []
        self.mode = mode
        self.path = path

    def __getattr__(self, name: str) -> Any:
        """Attributes of the block, which some models read (VideoDiT reads ``norm1``)."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(vars(self)["block"][0], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the block."""
        if self.source[0].active == self.mode:
            return self.block[0](*args, **kwargs)
        return self._again(*args, **kwargs)

    @torch.compiler.disable(recursive=False, reason=REASON)
    def _again(self, *args: Any, **kwargs: Any) -> Any:
        flexi = self.source[0]
        weak: WeakMode = flexi.modes[self.mode]  # type: ignore[assignment]
        start = f"{self.path}."
        layers = {path: layer for path, layer in (weak.lora_layers | _merged(weak)).items() if path.startswith(start)}
        inside = {path.removeprefix(start): layer for path, layer in layers.items()}
        with flexi.calls.lock, Shadows(Registered(self.block[0]), inside, {}):
            before, flexi.active = flexi.active, self.mode
            try:
                return self.block[0](*args, **kwargs)
            finally:
                flexi.active = before


def block_paths(paths: Iterable[str]) -> list[str]:
    """Return the paths of a transformer's blocks: those of modules inside them, up to the first number."""
    return list(dict.fromkeys(re.split(r"(?<=\d)\.", path)[0] for path in paths))


def refuse(registered: Registered, flexi: Flexi, name: str) -> None:
    """Refuse a weak mode that would compute wrong outputs; let LoRA adapt the modules registered now."""
    if getattr(registered[""], "_parallel_config", None) is not None:  # diffusers has no public name for it
        raise ValueError("got context or tensor parallelism of diffusers; expected none in weak modes; stay in native")
    weak: WeakMode = flexi.modes[name]  # type: ignore[assignment]
    for path, layer in weak.lora_layers.items():
        base = layer.base[0] = registered[path]
        if weak.merged and not is_plain(base):
            raise ValueError(
                f"got a {type(base).__name__} at {path} after merge_lora; expected the linear that was merged; call"
                " unmerge_lora first"
            )
    for path in {path.rpartition(".")[0] for path in weak.lora_layers}:
        if vars(registered[path]).get("fused_projections"):
            raise ValueError("got fused projections; expected q, k, v apart in weak modes; call unfuse_qkv_projections")
