"""LoRA of one mode, outside the model's own tree. Knows linears of any kind; no family.

A layer calls the linear that it adapts, as it is registered, and adds its low-rank products: the linear may be
quantised, cast layer by layer or offloaded, or carry another adapter. Names are those of peft.
"""

from __future__ import annotations

import re

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from flexivid.pretrained.weak_modes.affine import Affine, device_of, new_dtype


def has_peft(model: nn.Module) -> bool:
    """Whether peft layers stand in the model's own tree."""
    return any(isinstance(module, BaseTunerLayer) for module in model.modules())


INNER = {True: "base_layer", False: "original_module"}  # where peft has a native module: an adapted or a copied one


def native_names(model: nn.Module) -> dict[str, str]:
    """Return the original names of native weights by their present names: peft renames what it adapts.

    One entry for each of the state dict that neither an adapter nor ``flexify`` added. A fused adapter, which changes
    native weights, is a ``ValueError``.

    Example:
        >>> from peft import LoraConfig, inject_adapter_in_model
        >>> net = inject_adapter_in_model(LoraConfig(r=1, target_modules="0"), nn.Sequential(nn.Linear(4, 6)))
        >>> native_names(net)
        {'0.base_layer.weight': '0.weight', '0.base_layer.bias': '0.bias'}
    """
    names = {name: name for name in model.state_dict() if not name.startswith("flexi.")}
    for path, module in model.named_modules():
        if not isinstance(module, (BaseTunerLayer, ModulesToSaveWrapper)):
            continue
        if getattr(module, "merged", False):
            raise ValueError(
                f"got an adapter fused into {path}; expected native weights; unfuse it first (unfuse_lora of the"
                " pipeline), then save or load weak modes, and fuse it again"
            )
        inside, start = f"{path}.", f"{path}.{INNER[isinstance(module, BaseTunerLayer)]}."
        names = {
            now: name.replace(start[len(inside) :], "", 1) if now.startswith(start) else name
            for now, name in names.items()
            if now.startswith(start) or not now.startswith(inside)
        }
    return names


class LoraLinear(nn.Module):
    """A linear with low-rank products added, which start at zero; the scale is 1. ``dtype`` is that of new weights."""

    def __init__(self, base: nn.Module, rank: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.base = [base]  # in a list: it is registered in the model
        empty = torch.empty(0, device=device_of(base), dtype=dtype)
        self.lora_A = Affine.drawn((rank, int(base.in_features)), like=empty, bias=False)  # type: ignore[arg-type]
        self.lora_B = Affine(empty.new_zeros(int(base.out_features), rank))  # type: ignore[arg-type]

    @property
    def weight(self) -> Tensor:
        """The base's, for code that reads the dtype or device of a linear."""
        return self.base[0].weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        """The base's."""
        return self.base[0].bias  # type: ignore[return-value]

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """(..., inputs) -> (..., outputs); arguments beside x are for the base."""
        result = self.base[0](x, *args, **kwargs)
        low_rank = self.lora_A(x.to(self.lora_A.weight.dtype))
        return (result + self.lora_B(low_rank)).to(result.dtype)

    def delta(self) -> Tensor:
        """Return the change of the weights, (outputs, inputs)."""
        return self.lora_B.weight @ self.lora_A.weight


def attach_lora(model: nn.Module, targets: str, rank: int, dtype: torch.dtype) -> dict[str, LoraLinear]:
    """Make the LoRA layers of one mode, by the path of the linear; they are not registered in the model.

    ``targets`` is a regular expression of the paths of linears to adapt, ``dtype`` what the model computes in.
    ``ValueError`` if a module at such a path is no linear, or there is none.
    """
    bases = {path: module for path, module in model.named_modules() if re.fullmatch(targets, path)}
    wrong = [
        path for path, base in bases.items() if not (hasattr(base, "in_features") and hasattr(base, "out_features"))
    ]
    if wrong or not bases:
        what = f"a {type(bases[wrong[0]]).__name__} at {wrong[0]}" if wrong else f"no layer at {targets}"
        raise ValueError(
            f"got {what}; expected linears to adapt; flexify the model before others put layers of their own there, or"
            " compile parts of it"
        )
    return {path: LoraLinear(base, rank, new_dtype(dtype)) for path, base in bases.items()}
