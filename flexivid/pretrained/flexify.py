"""Give a pre-trained transformer weak modes, switch between them, take them away. Knows families by their description.

``model.flexi`` holds everything new and is not registered in the model: in every mode, modules, names, parameters and
state between calls are the original ones. What happens in a call in a weak mode is in weak_call.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

from diffusers.hooks import HookRegistry
from torch import nn

from flexivid.patching.shapes import PatchMode
from flexivid.pretrained.families.family import config_of
from flexivid.pretrained.families.registry import family_of, refuse_wrapped
from flexivid.pretrained.weak_modes.derived import derive, restore
from flexivid.pretrained.weak_modes.flexi import NATIVE, Flexi, WeakMode
from flexivid.pretrained.weak_modes.lora import has_peft, native_names
from flexivid.pretrained.weak_modes.shadows import Registered
from flexivid.pretrained.weak_modes.weak_call import block_paths, call_methods, chooser_of, process_of, refuse

Model = TypeVar("Model", bound=nn.Module)


def flexify(
    model: Model, modes: Sequence[str | PatchMode], *, rank: int = 16, skip: bool = False, detail: bool = False
) -> Model:
    """Attach new weak modes to a pre-trained transformer, as ``flexivid.flexify`` does, which also takes a folder."""
    refuse_wrapped(model)
    family = family_of(type(model).__name__)
    if hasattr(model, "flexi") or has_peft(model):
        kind = "weak modes" if hasattr(model, "flexi") else "peft adapters"
        raise ValueError(f"got a model with {kind}; expected one without; call unflexify or unload_lora_weights first")
    native = family.patch(config_of(model))
    weak_modes = [mode for mode in dict.fromkeys(PatchMode(mode) for mode in modes) if mode != native]
    if not weak_modes or rank < 0:
        raise ValueError(f"got modes {list(modes)}, rank {rank}; expected one weak mode at least and a rank >= 0")
    for mode in weak_modes:
        family.fold_of(config_of(model), mode)
    if detail and process_of(model, family) is None:
        raise ValueError(
            f"got detail=True for {type(model).__name__}; expected a rectified flow, DiT, Latte or FlexiDiT; leave"
            " detail out"
        )
    trainable = frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    flexi = Flexi(family, trainable, rank=rank, skip=skip, detail=detail)
    model.requires_grad_(False)
    for mode in weak_modes:
        flexi.modes[str(mode)] = WeakMode(model, family, mode, rank=rank, skip=skip)
    vars(model)["flexi"] = flexi.train(model.training)  # not registered: see the first lines
    derive(model, call_methods)
    return model


def unflexify(model: Model) -> Model:
    """Remove what ``flexify`` added: modules, names and trainable parameters are those from before.

    Raises:
        ValueError: If the model has no weak modes, or is wrapped.

    Example:
        >>> from diffusers import WanTransformer3DModel
        >>> wan = WanTransformer3DModel(num_attention_heads=2, attention_head_dim=12, ffn_dim=32, num_layers=1)
        >>> sum(p.requires_grad for p in flexify(wan, ["1x4x4"], rank=4).parameters())
        0
        >>> sum(p.requires_grad for p in unflexify(wan).parameters())
        42
    """
    if "flexi" not in {*vars(model), *dict(model.named_children())}:
        flexi_of(model)  # refuses a model without weak modes
        raise ValueError(f"got a {type(model).__name__} around a transformer; expected the transformer; pass that")
    trainable = flexi_of(set_mode(model, NATIVE)).trainable
    del model.flexi
    restore(model, call_methods)
    names = native_names(model)
    for name, parameter in model.named_parameters():
        if name in names:  # the others are of other adapters
            parameter.requires_grad_(names[name] in trainable)
    return model


def register(model: Model) -> Model:
    """Register what ``flexify`` added as ``flexi`` in the model, so that Lightning, DDP and FSDP find it."""
    model.flexi = flexi_of(model)
    return model


def flexi_of(model: nn.Module) -> Flexi:
    """Return what ``flexify`` added to a model; ``ValueError`` if it has no weak modes."""
    if not isinstance(getattr(model, "flexi", None), Flexi):
        raise ValueError(f"got a {type(model).__name__} without weak modes; expected some; call flexify first")
    return model.flexi  # type: ignore[return-value]


def current_mode(model: nn.Module) -> str:
    """Return the mode in use: ``"native"`` or a written form like ``"1x4x4"``; during a call, that of the call.

    Raises:
        ValueError: If the model has no weak modes.

    Example:
        >>> from diffusers import WanTransformer3DModel
        >>> wan = WanTransformer3DModel(num_attention_heads=2, attention_head_dim=12, ffn_dim=32, num_layers=1)
        >>> current_mode(set_mode(flexify(wan, ["1x4x4"], rank=4), "1x4x4"))
        '1x4x4'
    """
    flexi = flexi_of(model)
    return flexi.mode if flexi.active is None else flexi.active


def adapter_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters to train: patch layers, skips and LoRA of every mode, without merged copies."""
    return [parameter for name, parameter in flexi_of(model).named_parameters() if ".merged." not in name]


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """Return the blocks of a transformer: the modules whose inner linears take LoRA."""
    pattern = flexi_of(network).family.lora
    paths = [path for path, _ in network.named_modules() if re.fullmatch(pattern, path)]
    return [network.get_submodule(path) for path in block_paths(paths)]


def set_mode(model: Model, mode: str | PatchMode) -> Model:
    """Use a mode from the next call on. Caches of diffusers (first block cache and others) start anew.

    Call it outside of ``cache_context``. A backward pass may come later: it is that of the modes of its calls.

    Args:
        model: Transformer that went through ``flexify``, compiled or not.
        mode: ``"native"``, or a mode it has.

    Returns:
        The same model.

    Raises:
        ValueError: If the model has no such mode, fused projections or parallelism rule weak modes out, or a pipeline
            runs it under a budget.

    Example:
        >>> import torch
        >>> from diffusers import WanTransformer3DModel
        >>> wan = WanTransformer3DModel(num_attention_heads=2, attention_head_dim=12, ffn_dim=32, num_layers=1)
        >>> wan = set_mode(flexify(wan, ["1x4x4"], rank=4), "1x4x4")
        >>> latent, text = torch.zeros(1, 16, 2, 8, 8), torch.zeros(1, 4, 4096)
        >>> wan(latent, torch.tensor([500]), text).sample.shape  # of 8 tokens instead of 32
        torch.Size([1, 16, 2, 8, 8])
    """
    flexi = flexi_of(model)
    name = _name_of(mode, flexi, model)
    if chooser_of(flexi):
        raise ValueError(
            f"got mode {name} in a run under a budget, which chooses the mode of every step; expected none; remove()"
            " the budget first"
        )
    if name != NATIVE:
        refuse(Registered(model), flexi, name)
    return switch(model, name)


def switch(model: Model, name: str) -> Model:
    """Use a mode from the next call on, by its name, without the checks of ``set_mode``."""
    flexi = flexi_of(model)
    if name == flexi.mode:
        return model
    flexi.mode = name
    if getattr(model, "is_cache_enabled", False):
        HookRegistry.check_if_exists_or_initialize(model).reset_stateful_hooks()
    return model


def _name_of(mode: str | PatchMode, flexi: Flexi, model: nn.Module) -> str:
    if str(mode) == NATIVE or PatchMode(mode) == flexi.family.patch(config_of(model)):
        return NATIVE
    name = str(PatchMode(mode))
    if name not in flexi.modes:
        choices = ", ".join([NATIVE, *flexi.modes])
        raise ValueError(f"got mode {name}; expected one of {choices}; name it when you call flexify")
    return name
