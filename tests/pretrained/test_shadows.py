"""A shadow answers in the place of a module and leaves nothing behind."""

import torch
from torch import nn

from flexivid.pretrained.shadows import registered, reveal, shadow


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2)
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def test_attributes_and_lists_are_shadowed_and_come_back() -> None:
    net, x = Net(), torch.randn(3, 2)
    before, names, attributes = net(x), list(net.state_dict()), set(vars(net))
    for path in ("head", "layers.0", "layers.1"):
        shadow(net, path, nn.Identity())
    assert torch.equal(net(x), x)
    assert list(net.state_dict()) == names
    assert registered(net, "layers.1") is not net.layers[1]
    for path in ("layers.1", "head", "layers.0"):
        reveal(net, path)
    assert torch.equal(net(x), before)
    assert set(vars(net)) == attributes


def test_one_of_a_list_leaves_the_others() -> None:
    net = Net()
    shadow(net, "layers.1", nn.Identity())
    assert net.layers[0] is registered(net, "layers.0")
    assert isinstance(net.layers[1], nn.Identity)
