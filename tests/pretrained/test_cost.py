"""The closed formula is PyTorch's counter on the meta device, for every family and mode."""

import pytest
import torch
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from flexivid.pretrained.cost import transformer_macs
from flexivid.pretrained.flexify import flexify, set_mode
from tests.pretrained.families import CASES, TEXT, build, by_family, call


@by_family
def test_the_formula_is_the_counter(case) -> None:
    model = flexify(build(case).to("meta"), case.modes, rank=3, skip=True)
    for size in (case.even, case.odd):
        arguments = call(case, size)
        if arguments.get("timestep", torch.empty(0)).ndim > 1:  # the formula counts one time a sample
            arguments["timestep"] = arguments["timestep"].flatten(1)[:, 0]
        text = arguments["encoder_hidden_states"].shape[1] if "encoder_hidden_states" in arguments else 0
        arguments = tree_map_only(torch.Tensor, lambda x: x.to("meta"), arguments)
        for mode in ("native", case.native, *case.modes):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                set_mode(model, mode)(**arguments)
            assert transformer_macs(model, size, mode, text_tokens=text) == counter.get_total_flops() // 2


def test_a_configuration_is_enough_and_lora_can_be_left_out() -> None:
    wan = CASES[0]
    model = build(wan)
    config = {**model.config, "_class_name": type(model).__name__}
    for mode in ("native", "2x4x4"):
        assert transformer_macs(config, wan.odd, mode, text_tokens=TEXT) == transformer_macs(
            model, wan.odd, mode, text_tokens=TEXT
        )
    with_lora = transformer_macs(config, wan.odd, "2x4x4", text_tokens=TEXT, rank=3)
    assert with_lora > transformer_macs(config, wan.odd, "2x4x4", text_tokens=TEXT)
    assert transformer_macs(flexify(model, ["2x4x4"], rank=3), wan.odd, "2x4x4", text_tokens=TEXT) == with_lora


def test_a_mode_that_does_not_fit_has_no_cost() -> None:
    with pytest.raises(ValueError, match="whole multiple"):
        transformer_macs(build(CASES[0]), (4, 8, 8), "1x3x3", text_tokens=TEXT)
