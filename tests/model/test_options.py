"""Every option of the network: costs are PyTorch's, and packed or frozen calls give what single ones do."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from flexivid.budget.cost import macs, text_macs
from flexivid.model.block import Packed
from flexivid.model.conditioning import Condition, Text, time_features
from flexivid.model.config import FlexiDiTConfig
from flexivid.model.flexidit import FlexiDiT
from flexivid.model.frozen import frozen

DIT = {"positions": "sinusoids", "position_span": 4.0, "time_embedding": "ddpm", "qk_norm": False,
       "attention_bias": True, "activation": "gelu_tanh", "mlp_eps": 1e-5, "out_channels": 6}  # fmt: skip
LATTE = {**DIT, "attention": "factorised", "modulation": "single", "cross_attention": "plain", "text_channels": 8}
OPTIONS = [DIT, {**DIT, "attention": "factorised"}, {**DIT, "block_conditioning": True}, LATTE,
           {**LATTE, "attention": "joint"}, {"block_conditioning": True, "text_channels": 8},
           {"weak_detail": "flow velocity"}, {**DIT, "weak_detail": "linear noise"}]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("size", [(4, 8, 8), (3, 5, 7), (1, 4, 4)])
def test_costs_are_those_of_pytorchs_counter(options, size):
    config = FlexiDiTConfig(width=24, depth=3, num_heads=2, **options)
    tokens = 7 if config.text_channels else 0
    for mode in config.modes:
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            text = Text(torch.empty(1, tokens, config.text_channels)) if tokens else None
            FlexiDiT(config)(torch.empty(1, 3, *size), torch.empty(1), Condition(text=text), mode)
        assert counter.get_total_flops() // 2 == macs(config, size, mode, text_tokens=tokens) + text_macs(
            config, tokens
        )


@pytest.mark.parametrize("options", OPTIONS)
def test_packed_and_frozen_calls_give_what_single_ones_do(options, make_model):
    model = make_model(depth=3, **options)
    channels = model.config.text_channels
    x, time = torch.randn(8, 3, 3, 6, 6), torch.rand(8)
    text = Text(torch.randn(8, 5, channels), torch.arange(5) < torch.arange(8)[:, None]) if channels else None
    condition = Condition(torch.arange(8) % 4, text)
    modes = Packed(model.config.modes)
    with torch.no_grad():
        shares = zip(x.split(2), time.split(2), condition.split(2, 4), modes, strict=True)
        singles = torch.cat([model(*share) for share in shares])
        torch.testing.assert_close(model(x, time, condition, modes), singles, rtol=1e-4, atol=1e-4)
        with frozen(model):
            torch.testing.assert_close(model(x, time, condition, modes), singles, rtol=1e-4, atol=1e-4)


def test_times_of_a_ddpm_chain_are_its_timesteps():
    steps = torch.arange(1000)
    frequencies = 10000 ** (-torch.arange(128, dtype=torch.float64) / 128)
    angles = steps[:, None].double() * frequencies
    features = time_features((steps + 1) / 1000, "ddpm").double()
    torch.testing.assert_close(features, torch.cat((angles.cos(), angles.sin()), -1), rtol=0, atol=1e-4)
    assert torch.equal(features[:, 0], steps.float().cos().double())
