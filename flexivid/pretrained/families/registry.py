"""The families there are. A new one is a file beside this and a line here."""

from __future__ import annotations

from accelerate.utils import has_offloaded_params
from torch import nn

from flexivid.pretrained.families.cogvideox import COGVIDEOX
from flexivid.pretrained.families.cosmos import COSMOS
from flexivid.pretrained.families.dit import DIT
from flexivid.pretrained.families.family import Family
from flexivid.pretrained.families.flexidit import FLEXIDIT
from flexivid.pretrained.families.hunyuan import HUNYUAN
from flexivid.pretrained.families.latte import LATTE, VIDEO_DIT
from flexivid.pretrained.families.ltx import LTX
from flexivid.pretrained.families.wan import WAN

FAMILIES: dict[str, Family] = {
    family.class_name: family for family in (COGVIDEOX, COSMOS, DIT, FLEXIDIT, HUNYUAN, LATTE, LTX, VIDEO_DIT, WAN)
}


def family_of(class_name: str) -> Family:
    """Return the family of a transformer class; ``ValueError`` if there is none."""
    if class_name not in FAMILIES:
        raise ValueError(
            f"got a model of class {class_name}; expected one of {', '.join(sorted(FAMILIES))};"
            " pass the transformer of a pipeline, or add a family (docs/new_family.md)"
        )
    return FAMILIES[class_name]


def refuse_wrapped(model: nn.Module) -> None:
    """Refuse models whose layers ``flexify`` could not see: wrapped, compiled (in parts too) or offloaded ones."""
    kind = type(model).__name__
    inner = next((type(part).__name__ for part in model.modules() if type(part).__name__ in FAMILIES), None)
    if inner is not None and kind not in FAMILIES:
        raise ValueError(
            f"got a {kind} around a {inner}; expected the transformer itself; flexify it first, then compile or wrap it"
        )
    parts = {path: type(part).__name__ for path, part in model.named_modules()}
    compiled = next((path for path, name in parts.items() if name == "OptimizedModule"), None)
    if compiled is not None:
        raise ValueError(f"got a {kind} with {compiled} compiled; expected none; flexify it first, then compile parts")
    if any(weight.is_meta for weight in model.parameters()) and any(map(has_offloaded_params, model.modules())):
        raise ValueError(f"got a {kind} that is offloaded; expected its weights in memory; flexify it first")
