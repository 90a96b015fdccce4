"""LoRA of one mode by peft, kept outside the model's own tree. Knows peft; no family.

peft puts its layers in the place of the linears that it adapts, which renames the native weights. Here its layers are
taken out again at once: the model's names, modules and native path stay what they were, and a weak mode lets the layers
answer in the place of the linears (shadows.py).
"""

from __future__ import annotations

from typing import Any

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from flexivid.pretrained.shadows import registered


def has_peft(model: nn.Module) -> bool:
    """Whether peft layers stand in the model's own tree."""
    return any(isinstance(module, LoraLayer) for module in model.modules())


def attach_lora(model: nn.Module, targets: str, name: str, rank: int) -> dict[str, Any]:
    """Make the LoRA layers of one adapter: float32, zero effect at first.

    Freezes the model, as peft does.

    Args:
        model: Transformer, without peft layers.
        targets: Regular expression of the paths of linears to adapt.
        name: Name of the adapter.
        rank: Rank r; the scale is 1 (alpha = r).

    Returns:
        peft's layer for each path. None is registered in the model.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 6))
        >>> layer = attach_lora(net, "0", "1x4x4", rank=2)["0"]
        >>> sum(p.numel() for p in layer.lora_A.parameters()), list(net.state_dict())
        (8, ['0.weight', '0.bias'])
    """
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets)
    inject_adapter_in_model(config, model, adapter_name=name)
    layers = {path: module for path, module in model.named_modules() if isinstance(module, LoraLayer)}
    for path, layer in layers.items():
        _put(model, path, layer.base_layer)
    del model.peft_config
    return layers


def trainable_part(layer: LoraLayer, name: str) -> nn.ModuleDict:
    """The two low-rank linears of a peft layer."""
    return nn.ModuleDict({"lora_A": layer.lora_A[name], "lora_B": layer.lora_B[name]})


def rebase(model: nn.Module, path: str, layer: Any) -> Any:
    """Let a layer adapt what is registered under its path now, an adapter of somebody else included."""
    layer._modules["base_layer"] = registered(model, path)
    return layer


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    above, _, name = path.rpartition(".")
    registered(model, above)._modules[name] = module
