"""Saved and loaded, an adapter gives the same output; diffusers reads its LoRA; other weights are refused."""

import json

import pytest
import torch
from safetensors.torch import load_file

from flexivid.pretrained.adapter import fingerprint, load_adapter, save_adapter
from flexivid.pretrained.flexify import current_mode, flexify, set_mode
from tests.pretrained.families import CASES, build, by_family, call, disturb, output

WAN = CASES[0]


def flexible(case, modes=None, **settings):
    model = flexify(build(case), modes or case.modes, **({"rank": 2, "skip": True} | settings))
    disturb(model)
    return model


@by_family
def test_a_loaded_adapter_gives_the_same_output(case, tmp_path) -> None:
    model = flexible(case)
    save_adapter(model, tmp_path)
    loaded = load_adapter(build(case), tmp_path)
    arguments = call(case, case.odd)
    assert current_mode(loaded) == "native"
    assert not any(parameter.is_meta for parameter in loaded.parameters())
    for mode in ("native", *case.modes):
        assert torch.equal(output(set_mode(model, mode), arguments), output(set_mode(loaded, mode), arguments))


def test_new_values_for_modes_that_are_there(tmp_path) -> None:
    save_adapter(flexible(WAN), tmp_path)
    model = set_mode(flexify(build(WAN), WAN.modes, rank=2, skip=True), "1x4x4")
    load_adapter(model, tmp_path)
    arguments = call(WAN, WAN.even)
    assert torch.equal(output(model, arguments), output(set_mode(flexible(WAN), "1x4x4"), arguments))


def test_diffusers_reads_the_lora(tmp_path) -> None:
    model = flexible(WAN, ["1x4x4"], skip=False)
    save_adapter(model, tmp_path)
    plain = build(WAN)
    plain.load_lora_adapter(load_file(tmp_path / "1x4x4.safetensors"), adapter_name="weak")
    arguments = call(WAN, WAN.even)
    hidden = torch.randn(1, 16, 24)
    ours = model.flexi.modes["1x4x4"].lora_layers["blocks.1.ffn.net.0.proj"]
    assert torch.equal(plain.blocks[1].ffn.net[0].proj(hidden), ours(hidden))
    assert not torch.equal(output(plain, arguments), output(model, arguments))


def test_the_fingerprint_holds_for_bfloat16_and_for_modes_and_not_for_others() -> None:
    model = build(WAN)
    expected = fingerprint(model)
    assert fingerprint(flexify(model, ["1x4x4"], rank=1)) == expected
    assert fingerprint(build(WAN, torch.bfloat16)) == expected
    model.blocks[1].ffn.net[2].bias.data[0] += 0.5
    assert fingerprint(model) != expected


def test_other_weights_other_families_and_other_modes_are_refused(tmp_path) -> None:
    save_adapter(flexible(WAN), tmp_path)
    other = build(WAN)
    other.proj_out.weight.data += 0.1
    with pytest.raises(ValueError, match="of other native weights; expected sha256"):
        load_adapter(other, tmp_path)
    assert not hasattr(other, "flexi")
    assert current_mode(load_adapter(other, tmp_path, check=False)) == "native"
    with pytest.raises(ValueError, match="an adapter for WanTransformer3DModel; expected one for LTX"):
        load_adapter(build(CASES[1]), tmp_path)
    with pytest.raises(ValueError, match=r"OptimizedModule around a WanTransformer3DModel; .* flexify it first"):
        load_adapter(torch.compile(build(WAN)), tmp_path)
    with pytest.raises(ValueError, match="call unflexify first"):
        load_adapter(flexify(build(WAN), ["2x2x2"], rank=2), tmp_path)
    with pytest.raises(ValueError, match=r"with flexivid\.json"):
        load_adapter(build(WAN), tmp_path / "nothing")


def test_weights_that_are_not_there_have_no_fingerprint() -> None:
    with pytest.raises(ValueError, match="before offloading"):
        fingerprint(build(WAN).to("meta"))


def test_the_settings_are_plain_data(tmp_path) -> None:
    settings = json.loads((save_adapter(flexible(WAN), tmp_path) / "flexivid.json").read_text())
    assert settings["modes"] == list(WAN.modes)
    assert settings["rank"] == 2
    assert len(settings["native_sha256"]) == 64
