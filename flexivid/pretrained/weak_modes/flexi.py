"""What ``flexify`` adds to a model: the layers of each weak mode, and which mode is in use. Calls no model.

It is not registered in the model: code that lists the model's modules, parameters or state sees the original ones.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import nn

from flexivid.patching.shapes import PatchMode
from flexivid.pretrained.families.family import Family, config_of
from flexivid.pretrained.families.registry import family_of
from flexivid.pretrained.weak_modes.affine import compute_dtype
from flexivid.pretrained.weak_modes.layers import Embedding, Unembedding
from flexivid.pretrained.weak_modes.lora import attach_lora
from flexivid.pretrained.weak_modes.shadows import Registered

NATIVE = "native"


class WeakMode(nn.Module):
    """What one weak mode adds to a model: patch layers and LoRA (registered), positions (not)."""

    def __init__(self, model: nn.Module, family: Family, mode: PatchMode, *, rank: int, skip: bool) -> None:
        super().__init__()
        self.fold = family.fold_of(config_of(model), mode)
        channels, out_channels = family.channels(config_of(model))
        width = out_channels * mode.volume if skip else 0
        if family.native_layers is None:
            registered = Registered(model)
            embed, unembed = registered[family.embed], registered[family.unembed]
        else:
            embed, unembed = family.native_layers(model)
        dtype = compute_dtype(model)
        self.embed = Embedding.grow(embed, channels, self.fold, dtype=dtype, skip_features=width)
        self.unembed = Unembedding.grow(unembed, self.embed, self.fold, family.output_order, dtype=dtype)
        self.lora_layers = attach_lora(model, family.lora, rank, dtype) if rank else {}
        self.lora = nn.ModuleDict({path.replace(".", "-"): layer for path, layer in self.lora_layers.items()})
        self.merged = nn.ModuleDict()  # by path with "-" for ".": linears that hold base and LoRA in one (merged.py)
        self.lists: dict[str, nn.ModuleList] = {}  # by path: copies of lists of modules (shadows.py)
        self.blocks: dict[str, nn.Module] = {}  # by path: blocks that remember the mode (weak_call.py)
        wrapped_embed, wrapped_unembed = family.wrap_layers(self.embed, self.unembed, self.fold)
        patch_layers = {family.embed: wrapped_embed, family.unembed: wrapped_unembed}
        self.shadows = {**patch_layers, **family.positions(model, self.fold), **self.lora_layers}


class CallLock:
    """Lets one thread at a time call a model, since weak layers answer in the place of native ones."""

    def __init__(self) -> None:
        self.lock = threading.RLock()

    def __reduce__(self) -> tuple[type[CallLock], tuple]:  # copies have a lock of their own
        return CallLock, ()


class Flexi(nn.Module):
    """All that flexivid adds to a model."""

    def __init__(self, family: Family, trainable: frozenset[str], *, rank: int, skip: bool, detail: bool) -> None:
        super().__init__()
        self.class_name = family.class_name
        self.modes = nn.ModuleDict()  # the weak modes by their written form
        self.mode = NATIVE  # the mode that was set
        self.active: str | None = None  # the mode of the call that is running
        self.rank = rank  # of the LoRA; 0 = none
        self.skip = skip  # whether modes have a skip around the transformer
        self.detail = detail  # whether weak modes pass on the detail that their patches lose
        self.trainable = trainable  # names of the native parameters that were trainable before
        self.native_sha256: str | None = None  # of the native weights, if an adapter folder had it
        self.calls = CallLock()
        self.device: torch.device | None = None

    @property
    def family(self) -> Family:
        """Description of the model's class."""
        return family_of(self.class_name)

    @property
    def settings(self) -> dict[str, Any]:
        """What ``flexify`` was called with, as adapter folders and checkpoints store it."""
        return {"modes": list(self.modes), "rank": self.rank, "skip": self.skip, "detail": self.detail}

    @property
    def is_merged(self) -> bool:
        """Whether weak modes use copies with LoRA merged (merged.py)."""
        return any(mode.merged for mode in self.modes.values())

    def follow(self, model: nn.Module) -> None:
        """Move to the device that the model was moved to since the last call: ``model.to`` does not reach this."""
        device = next((parameter.device for parameter in model.parameters()), None)
        if device in (None, self.device, torch.device("meta")):
            return
        with torch.inference_mode(False):
            self.to(device)
        self.device = device
