"""Chained optimizers behave as one; weight decay touches matrices only."""

from __future__ import annotations

import copy

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision

from flexivid import FlexiDiT, FlexiDiTConfig
from flexivid.training.optimizer import Chained, OptimizerSettings, build_optimizer, rate_factor


def small() -> FlexiDiT:
    torch.manual_seed(0)
    return FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2", "1x4x4"), num_classes=3))


def take_steps(model: FlexiDiT, optimizer: torch.optim.Optimizer, count: int) -> None:
    for _ in range(count):
        for index, parameter in enumerate(model.parameters()):
            parameter.grad = torch.full_like(parameter, 0.01).cumsum(0) * (index + 1)
        optimizer.step()


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_parameter_is_in_one_group(name):
    model = small()
    groups = build_optimizer(model, OptimizerSettings(name=name)).param_groups
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_lightning_clips_gradients_under_bf16(name):
    model = small()
    optimizer = build_optimizer(model, OptimizerSettings(name=name))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    MixedPrecision("bf16-mixed", "cpu").clip_gradients(optimizer, 1.0)
    assert torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]).item() == pytest.approx(1.0, rel=1e-3)


def test_decay_shrinks_matrices_only():
    model = small()
    before = {name: p.clone() for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, OptimizerSettings(learning_rate=0.1, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    shrunk = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert "embed.weight" in shrunk
    assert "blocks.0.mlp_in.weight" in shrunk
    assert not shrunk & {"conditioning.label.weight", "conditioning.mode", "mode_embedding", "blocks.0.mlp_in.bias"}


def test_muon_takes_the_matrices_of_the_blocks():
    model = small()
    chained = build_optimizer(model, OptimizerSettings(name="muon"))
    assert isinstance(chained, Chained)
    names = {id(p): name for name, p in model.named_parameters()}
    muon = sorted(names[id(p)] for p in chained.parts[0].param_groups[0]["params"])
    taken = ("attention.k", "attention.out", "attention.q", "attention.v", "mlp_in", "mlp_out")
    assert muon == [f"blocks.0.{name}.weight" for name in taken]


def test_the_rate_reaches_both_parts():
    model = small()
    chained = build_optimizer(model, OptimizerSettings(name="muon", learning_rate=1.0, muon_learning_rate=2.0))
    rate = torch.optim.lr_scheduler.LambdaLR(chained, lambda step: 0.5**step)
    take_steps(model, chained, 1)
    rate.step()
    assert [group["lr"] for part in chained.parts for group in part.param_groups] == [1.0, 0.5, 0.5]


def test_saved_and_restored_it_goes_on_the_same():
    one, settings = small(), OptimizerSettings(name="muon", learning_rate=1e-2)
    first = build_optimizer(one, settings)
    take_steps(one, first, 3)
    two = copy.deepcopy(one)
    second = build_optimizer(two, settings)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    take_steps(one, first, 2)
    take_steps(two, second, 2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_the_rate_rises_then_falls_to_its_end():
    settings = OptimizerSettings(warmup_steps=10, final_fraction=0.1)
    factors = [rate_factor(step, step / 1000, settings) for step in range(1001)]
    assert factors[0] == pytest.approx(0.1, rel=1e-3)
    assert max(factors) == pytest.approx(1, abs=1e-3)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[-1] == pytest.approx(0.1)
