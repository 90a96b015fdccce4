"""Measured MACs equal predicted ones under every kind of plan, and a budget is kept."""

import pytest
import torch

from flexivid.budget.cost import macs
from flexivid.model.conditioning import Condition
from flexivid.model.flops import CallCounter, meta_macs
from flexivid.patching.shapes import PatchMode, Size3
from flexivid.sampling.generate import generate

PLANS = {
    "unguided": {},
    "budget": {"budget": 0.4},
    "guided": {"budget": 0.4, "guidance_scale": 3.0},
    "packed": {"budget": 0.6, "guidance_scale": 3.0, "guidance": "auto", "packing": "always"},
    "interval": {"budget": 0.6, "guidance_scale": 3.0, "guidance_interval": (0.3, 0.8)},
    "weak guidance": {"budget": 0.6, "guidance_scale": 3.0, "guide_mode": "2x4x4"},
    "no guidance in weak modes": {"budget": 0.6, "guidance_scale": 3.0, "weak_guidance_scale": 1.0},
    "guidance in weak modes alone": {"budget": 0.6, "weak_guidance_scale": 3.0},
    "less guidance in weak modes": {"budget": 0.6, "guidance_scale": 3.0, "weak_guidance_scale": 2.0},
    "no guidance in weak modes of heun": {
        **{"schedule": "4x2x4x4,3x1x2x2", "solver": "heun"},
        **{"guidance_scale": 3.0, "weak_guidance_scale": 1.0, "guidance": "auto", "guidance_interval": (0.3, 0.8)},
    },
    "heun": {"budget": 0.5, "solver": "heun"},
    "heun guided": {"budget": 0.5, "solver": "heun", "guidance_scale": 2.0},
    "explicit": {"schedule": "2x2x4x4,2x1x2x2"},
    "guidance at some steps": {"schedule": "1x2x4x4,1x1x2x2+1x2x2,1x1x2x2+2x4x4,1x1x2x2", "guidance_scale": 2.0},
    "padded": {"budget": 0.7, "size": (3, 9, 10)},
}


@pytest.mark.parametrize("attention", ["joint", "factorised"])
@pytest.mark.parametrize("name", PLANS)
def test_measured_equals_predicted(build_model, name, attention):
    made = generate(build_model(attention=attention), num_videos=3, batch_size=2, **PLANS[name])
    assert made.measured_macs == made.predicted_macs > 0


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
def test_a_quarter_is_at_most_a_quarter(model, guidance_scale):
    shared = {"num_videos": 2, "guidance_scale": guidance_scale, "num_inference_steps": 10}
    full, quarter = (generate(model, budget, **shared) for budget in (1.0, 0.25))
    assert 0 < quarter.measured_macs <= 0.25 * full.measured_macs
    assert generate(model, 0.25, **shared).measured_macs == quarter.measured_macs


@pytest.mark.parametrize(
    ("settings", "calls"),
    [
        ({}, 4),
        ({"guidance_scale": 2.0, "packing": "never"}, 8),
        ({"solver": "heun"}, 7),
        ({"schedule": "4x1x2x2"}, 4),
        ({"guidance_scale": 2.0, "packing": "always"}, 4),
    ],
)
def test_no_call_without_need(model, settings, calls):
    with CallCounter(model) as counter:
        generate(model, num_videos=1, **settings)
    assert counter.calls == calls


def test_counter_adds_up_samples_sizes_and_modes(model):
    time = torch.zeros(2)
    with CallCounter(model) as counter:
        model(torch.zeros(2, 3, 4, 8, 8), time)
        model(x=torch.zeros(2, 3, 2, 6, 6), time=time, condition=Condition(), mode="2x4x4")
    model(torch.zeros(2, 3, 4, 8, 8), time)  # after it was left
    assert counter.calls == 2
    assert counter.macs == 2 * (macs(model.config, (4, 8, 8)) + macs(model.config, (2, 6, 6), "2x4x4"))


def test_counter_lets_go_when_sampling_fails(model):
    with pytest.raises(ValueError, match="got time of shape"), CallCounter(model):
        model(torch.zeros(2, 3, 4, 8, 8), torch.zeros(3))
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("mode", ["1x2x2", "2x4x4"])
def test_meta_pass_counts_what_the_formula_says(model, mode):
    assert meta_macs(model.config, Size3(4, 8, 8), PatchMode(mode)) == macs(model.config, (4, 8, 8), mode)
