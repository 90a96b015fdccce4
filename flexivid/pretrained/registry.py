"""Which families there are. A new one is a file beside this and a line here."""

from __future__ import annotations

from flexivid.pretrained.cogvideox import COGVIDEOX
from flexivid.pretrained.cosmos import COSMOS
from flexivid.pretrained.dit import DIT
from flexivid.pretrained.family import Family
from flexivid.pretrained.flexidit import FLEXIDIT
from flexivid.pretrained.hunyuan import HUNYUAN
from flexivid.pretrained.latte import LATTE, VIDEO_DIT
from flexivid.pretrained.ltx import LTX
from flexivid.pretrained.wan import WAN

FAMILIES: dict[str, Family] = {
    family.class_name: family for family in (COGVIDEOX, COSMOS, DIT, FLEXIDIT, HUNYUAN, LATTE, LTX, VIDEO_DIT, WAN)
}


def family_of(class_name: str) -> Family:
    """The family of a transformer class.

    Raises:
        ValueError: If there is none.

    Example:
        >>> family_of("WanTransformer3DModel").embed
        'patch_embedding'
    """
    if class_name not in FAMILIES:
        raise ValueError(
            f"got a model of class {class_name}; expected one of {', '.join(sorted(FAMILIES))};"
            " pass the transformer of a pipeline, or add a file to flexivid/pretrained/"
        )
    return FAMILIES[class_name]
