"""A snapshot notices every change of weights, however it is made, and nothing else."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from flexivid.runtime.weights import Snapshot, is_plain


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Linear(16, 1, bias=False))


def by_optimizer(module: nn.Module) -> None:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    module(torch.randn(4, 16)).sum().backward()
    optimizer.step()


def by_load(module: nn.Module) -> None:
    module.load_state_dict({name: value + 1 for name, value in module.state_dict().items()})


def by_data(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.data.copy_(parameter.data * 0.99)


def by_replacement(module: nn.Module) -> None:
    module[0].weight = nn.Parameter(module[0].weight.detach().clone())


CHANGES = {
    "optimizer": by_optimizer,
    "load": by_load,
    "data": by_data,
    "replacement": by_replacement,
    "dtype": lambda module: module.double(),
    "init": lambda module: nn.init.ones_(module[2].weight),
    "buffer": lambda module: module[1].running_mean.add_(1),
    "assigned data": lambda module: setattr(module[0].weight, "data", module[0].weight.data.clone()),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_noticed(change) -> None:
    module = build().eval()
    snapshot = Snapshot(module)
    assert snapshot.holds(module)
    change(module)
    assert not snapshot.holds(module)


def test_calls_and_gradients_change_nothing() -> None:
    module = build().eval()
    snapshot = Snapshot(module)
    module(torch.randn(4, 16)).sum().backward()
    module.train().eval()
    assert snapshot.holds(module)


def test_another_module_with_equal_weights_is_not_the_same() -> None:
    assert not Snapshot(build()).holds(build())


def test_what_is_no_ordinary_tensor_on_one_device_is_not_plain() -> None:
    assert is_plain(build())
    assert not is_plain(build().to("meta"))
    turned = build()
    turned[0].weight.data = turned[0].weight.data.T
    assert not is_plain(turned)


def test_a_snapshot_does_not_keep_the_module_alive() -> None:
    module = build()
    snapshots, alive = [Snapshot(module)], weakref.ref(module)
    del module
    gc.collect()
    assert alive() is None
    assert len(snapshots) == 1
