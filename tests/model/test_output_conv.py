"""It starts as the identity, comes after the patches are put together, and repeats what is at the edge beyond it."""

import pytest
import torch

from flexivid.budget.cost import OUTPUT_CONV_CELLS, OUTPUT_CONV_HIDDEN
from flexivid.model.block import Packed
from flexivid.model.conditioning import Condition
from flexivid.patching.embed import OutputConv

MODES = ("1x2x2", "1x4x4", "2x4x4")
LABELS = Condition(torch.tensor([0, 2]))


@pytest.fixture
def conv():
    torch.manual_seed(0)
    conv = OutputConv(2)
    for parameter in conv.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return conv


def test_starts_as_the_identity_and_learns_from_the_first_step():
    conv, y = OutputConv(3), torch.randn(2, 3, 4, 8, 8)
    assert torch.equal(conv(y), y)
    conv(y).square().mean().backward()
    assert conv.gather.weight.grad.abs().sum() > 0
    assert conv.spread.weight.grad.abs().sum() == 0  # moves as soon as the other one is no longer zero


def test_equals_a_sum_over_shifted_copies(conv):
    y = torch.randn(1, 2, 3, 5, 4)
    index = [torch.arange(-1, side + 1).clamp(0, side - 1) for side in y.shape[2:]]
    edged = y[:, :, index[0]][:, :, :, index[1]][..., index[2]]
    hidden = conv.spread.bias.view(1, -1, 1, 1, 1)
    for t, h, w in torch.cartesian_prod(*[torch.arange(3)] * 3):
        shifted = edged[:, :, t : t + 3, h : h + 5, w : w + 4]
        hidden = hidden + torch.einsum("bcthw,dc->bdthw", shifted, conv.spread.weight[..., t, h, w])
    hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
    gathered = torch.einsum("bdthw,cd->bcthw", hidden, conv.gather.weight.flatten(1))
    expected = y + gathered + conv.gather.bias.view(1, -1, 1, 1, 1)
    torch.testing.assert_close(conv(y), expected, rtol=1e-5, atol=1e-5)


def test_a_uniform_video_stays_uniform_up_to_the_edge(conv):
    out = conv(torch.full((1, 2, 3, 5, 4), 0.7))
    torch.testing.assert_close(out, out[:, :, :1, :1, :1].expand_as(out))


def test_without_it_a_network_has_the_weights_that_it_had(make_model, make_batch):
    (x, time), plain, convolved = make_batch(), make_model(), make_model(output_conv=True)
    own = {name for name, _ in convolved.out_conv.named_parameters()}
    assert set(convolved.state_dict()) - set(plain.state_dict()) == {f"out_conv.{name}" for name in own}
    assert not [name for name in plain.state_dict() if "out_conv" in name]
    convolved.load_state_dict({**convolved.state_dict(), **plain.state_dict()})
    for parameter in convolved.out_conv.gather.parameters():
        torch.nn.init.zeros_(parameter)
    for mode in MODES:
        assert torch.equal(convolved(x, time, LABELS, mode), plain(x, time, LABELS, mode))


@pytest.mark.parametrize("size", [(4, 8, 8), (3, 9, 7)])
def test_a_network_applies_it_to_the_cropped_output_in_every_mode_packed_or_not(make_model, make_batch, size):
    model, (x, time) = make_model(modes=MODES, output_conv=True), make_batch(size)
    conv, model.out_conv = model.out_conv, None
    before = [model(x, time, LABELS, mode) for mode in MODES]
    model.out_conv = conv
    after = [model(x, time, LABELS, mode) for mode in MODES]
    for y, convolved in zip(before, after, strict=True):
        torch.testing.assert_close(convolved, conv(y), rtol=1e-5, atol=1e-5)
        assert (convolved - y).abs().max() > 0.1
    label = Condition(LABELS.label.repeat(3))
    packed = model(x.repeat(3, 1, 1, 1, 1), time.repeat(3), label, Packed(model.config.modes))
    torch.testing.assert_close(packed, torch.cat(after), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_every_weight_is_trained_in_every_mode(make_model, make_batch, mode):
    model, (x, time) = make_model(modes=MODES, output_conv=True), make_batch()
    model(x, time, LABELS, mode).square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.out_conv.parameters())


def test_cost_formulas_know_its_shape():
    weight = OutputConv(3).spread.weight
    assert weight.shape == (OUTPUT_CONV_HIDDEN, 3, 3, 3, 3)
    assert weight[0, 0].numel() == OUTPUT_CONV_CELLS
