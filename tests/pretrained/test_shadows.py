"""A shadow answers in the place of a module while a block lasts, and leaves nothing behind, however the block ends."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from flexivid.pretrained.weak_modes.shadows import Registered, Shadows


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2)
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, GeneratorExit])
def test_attributes_and_lists_are_shadowed_and_come_back(error) -> None:
    net, x = Net(), torch.randn(3, 2)
    before, names, attributes = net(x), list(net.state_dict()), set(vars(net))
    with pytest.raises(error) if error else nullcontext():  # noqa: SIM117
        with Shadows(Registered(net), {path: nn.Identity() for path in ("head", "layers.0", "layers.1")}, {}):
            assert torch.equal(net(x), x)
            assert list(net.state_dict()) == names
            assert all(isinstance(module, nn.Linear) for name, module in net.named_modules() if name.startswith("head"))
            if error:
                raise error
    assert torch.equal(net(x), before)
    assert set(vars(net)) == attributes


def test_one_of_a_list_leaves_the_others_and_the_copy_is_used_again() -> None:
    net, lists = Net(), {}
    for _ in range(2):
        with Shadows(Registered(net), {"layers.1": nn.Identity()}, lists):
            assert isinstance(net.layers[1], nn.Identity)
            assert net.layers is lists["layers"]
    first = lists["layers"]
    net.layers[0] = nn.Linear(2, 2)  # by the user, between blocks
    with Shadows(Registered(net), {"layers.1": nn.Identity()}, lists):
        assert net.layers is first
    assert first[0] is net.layers[0]


def test_blocks_inside_of_each_other_end_in_order() -> None:
    net, outer, inner = Net(), nn.Identity(), nn.Identity()
    with Shadows(Registered(net), {"head": outer}, {}):
        with Shadows(Registered(net), {"head": inner}, {}):
            assert net.head is inner
        assert net.head is outer
    assert isinstance(net.head, nn.Linear)


def test_a_path_that_is_gone_is_named() -> None:
    net = Net()
    del net.layers
    with pytest.raises(ValueError, match=r"got a Net without layers; expected the modules that it had when"):
        Shadows(Registered(net), {"layers.1": nn.Identity()}, {})
