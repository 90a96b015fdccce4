"""Merged copies answer as the LoRA does, cost no low-rank products, and leave nothing behind."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from flexivid.pretrained.adapter import load_adapter, save_adapter
from flexivid.pretrained.cost import transformer_macs
from flexivid.pretrained.flexify import adapter_parameters, current_mode, flexify, set_mode, unflexify
from flexivid.pretrained.merged import merge_lora, unmerge_lora
from tests.pretrained.families import CASES, build, by_family, call, disturb, output

WAN = CASES[0]


def flexible(case):
    model = flexify(build(case), case.modes, rank=2)
    disturb(model)
    return model


@by_family
def test_the_same_output_at_less_cost(case) -> None:
    model = flexible(case)
    arguments, new = call(case, case.odd), len(adapter_parameters(model))
    native = output(model, arguments)
    before = {mode: output(set_mode(model, mode), arguments) for mode in case.modes}
    num_bytes = merge_lora(model)  # in a weak mode
    assert current_mode(model) == case.modes[-1]
    assert len(adapter_parameters(model)) == new
    assert num_bytes == sum(p.nbytes for mode in model.flexi.modes.values() for p in mode.merged.parameters()) > 0
    for mode, expected in before.items():
        torch.testing.assert_close(output(set_mode(model, mode), arguments), expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(output(set_mode(model, "native"), arguments), native)
    for mode, expected in before.items():
        assert torch.equal(output(set_mode(unmerge_lora(model), mode), arguments), expected)


def test_cost_is_what_the_counter_says() -> None:
    model = flexify(build(WAN).to("meta"), WAN.modes, rank=2)
    arguments = {name: x.to("meta") if torch.is_tensor(x) else x for name, x in call(WAN, WAN.even).items()}
    text = arguments["encoder_hidden_states"].shape[1]
    with_lora = transformer_macs(model, WAN.even, "1x4x4", text_tokens=text)
    merge_lora(model)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        set_mode(model, "1x4x4")(**arguments)
    merged = transformer_macs(model, WAN.even, "1x4x4", text_tokens=text)
    assert counter.get_total_flops() == 2 * merged
    assert merged < with_lora


def test_adapter_files_and_the_model_are_as_without(tmp_path) -> None:
    model = flexible(WAN)
    merge_lora(model)
    save_adapter(model, tmp_path)
    arguments = call(WAN, WAN.even)
    loaded = set_mode(load_adapter(build(WAN), tmp_path), "1x4x4")
    torch.testing.assert_close(output(loaded, arguments), output(set_mode(model, "1x4x4"), arguments))
    for parameter in adapter_parameters(model):
        parameter.data.zero_()
    load_adapter(model, tmp_path)  # new values: old copies must go
    assert torch.equal(output(set_mode(model, "1x4x4"), arguments), output(loaded, arguments))
    merge_lora(model)
    assert unflexify(model).state_dict().keys() == build(WAN).state_dict().keys()


def test_adapters_of_others_are_refused() -> None:
    model = flexible(WAN)
    model.blocks[0].attn1.to_q = torch.nn.Sequential(model.blocks[0].attn1.to_q)
    with pytest.raises(ValueError, match=r"got a Sequential at blocks.0.attn1.to_q; .* merge before you add them"):
        merge_lora(model)
    model = flexible(WAN)
    merge_lora(model)
    model.blocks[0].attn1.to_q = torch.nn.Sequential(model.blocks[0].attn1.to_q)
    with pytest.raises(
        ValueError, match=r"got a Sequential at blocks.0.attn1.to_q after merge_lora; .* call unmerge_lora"
    ):
        set_mode(model, "1x4x4")
