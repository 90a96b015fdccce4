"""Text and given frames in the network: what does not count, what costs what, and one reading for all steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from flexivid import FlexiDiT, FlexiDiTConfig
from flexivid.budget.cost import macs, text_macs
from flexivid.model.block import CrossAttention, Packed
from flexivid.model.conditioning import Condition, Frames, Text, join_texts

SIZE, LENGTH = (4, 8, 8), 5


def config(**changes: object) -> FlexiDiTConfig:
    shape = {"width": 32, "depth": 2, "num_heads": 2, "modes": ("1x2x2", "2x4x4"), "num_classes": 3}
    return FlexiDiTConfig(**{**shape, "text_channels": 24, "given_frames": True, **changes})


@pytest.fixture
def model() -> FlexiDiT:
    torch.manual_seed(0)
    network = FlexiDiT(config()).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


def inputs(batch: int = 2) -> tuple[Tensor, Tensor, Condition]:
    torch.manual_seed(1)
    x, clean = torch.randn(2, batch, 3, *SIZE)
    given = torch.zeros(batch, 1, *SIZE)
    given[:, :, 0] = 1
    mask = torch.arange(LENGTH) < torch.tensor([[3], [LENGTH]])[:batch]
    text = Text(torch.randn(batch, LENGTH, 24), mask)
    return x, torch.rand(batch), Condition(torch.tensor([0, 3])[:batch], text, Frames(clean, given))


@pytest.mark.parametrize("attention", ["joint", "factorised"])
@pytest.mark.parametrize("mode", ["1x2x2", "2x4x4"])
def test_cost_is_that_of_the_counter(attention: str, mode: str) -> None:
    with torch.device("meta"):
        network = FlexiDiT(config(attention=attention))
        x, condition = torch.zeros(1, 3, *SIZE), Condition(None, Text(torch.zeros(1, LENGTH, 24)), None)
        with FlopCounterMode(display=False) as reading:
            condition = network.prepare(condition, 1)
        with FlopCounterMode(display=False) as call:
            network(x, torch.zeros(1), condition, mode)
    assert reading.get_total_flops() == 2 * text_macs(network.config, LENGTH)
    assert call.get_total_flops() == 2 * macs(network.config, SIZE, mode, text_tokens=LENGTH)


def test_without_text_nothing_is_added() -> None:
    plain = config(text_channels=0, given_frames=False)
    assert text_macs(plain, LENGTH) == 0
    assert macs(plain, SIZE, text_tokens=LENGTH) == macs(plain, SIZE)
    assert {"text_channels", "given_frames"}.isdisjoint(plain.to_dict())


def test_a_text_that_was_read_before_gives_the_same(model: FlexiDiT) -> None:
    x, time, condition = inputs()
    for mode in model.config.modes:
        assert torch.equal(model(x, time, condition, mode), model(x, time, model.prepare(condition, 2), mode))


def test_padding_does_not_count(model: FlexiDiT) -> None:
    x, time, condition = inputs()
    features = condition.text.features.clone()
    features[0, 3:] = torch.nan
    spoilt = condition._replace(text=condition.text._replace(features=features))
    assert torch.equal(model(x, time, spoilt), model(x, time, condition))
    short = Condition(condition.label[:1], Text(features[:1, :3]), Frames(*(part[:1] for part in condition.frames)))
    torch.testing.assert_close(model(x[:1], time[:1], short), model(x, time, condition)[:1])


def test_every_text_has_its_own_answer_and_no_text_is_the_empty_one(model: FlexiDiT) -> None:
    x, time, condition = inputs()
    empty = Text(condition.text.features, torch.zeros(2, LENGTH, dtype=torch.bool))
    null, other = (condition._replace(text=text) for text in (None, Text(condition.text.features.flip(0))))
    torch.testing.assert_close(model(x, time, condition._replace(text=empty)), model(x, time, null))
    for one, two in ((condition, null), (condition, other)):
        assert (model(x, time, one) - model(x, time, two)).abs().amax((1, 2, 3, 4)).min() > 1e-3


def test_modes_in_one_row_read_their_own_texts(model: FlexiDiT) -> None:
    x, time, condition = inputs()
    twice = Condition(
        condition.label.repeat(2),
        *(type(part)(*(y.repeat(2, *[1] * (y.ndim - 1)) for y in part)) for part in condition[1:]),
    )
    packed = model(x.repeat(2, 1, 1, 1, 1), time.repeat(2), twice, Packed(model.config.modes))
    apart = torch.cat([model(x, time, condition, mode) for mode in model.config.modes])
    torch.testing.assert_close(packed, apart)


def test_joined_texts_of_different_lengths_are_read_as_alone(model: FlexiDiT) -> None:
    x, time, condition = inputs()
    short = model.prepare(Condition(text=Text(condition.text.features[:1, :2])), 1)
    long = model.prepare(Condition(text=Text(condition.text.features[1:])), 1)
    joined = model(x, time, Condition(text=join_texts([short.text, long.text])))
    alone = torch.cat([model(x[i : i + 1], time[i : i + 1], own) for i, own in enumerate((short, long))])
    torch.testing.assert_close(joined, alone)


def test_only_given_frames_count(model: FlexiDiT) -> None:
    x, time, condition = inputs()
    latent, mask = condition.frames
    others = torch.where(mask > 0, latent, torch.nan)
    assert torch.equal(model(x, time, condition._replace(frames=Frames(others, mask))), model(x, time, condition))
    nothing = condition._replace(frames=Frames(latent, torch.zeros_like(mask)))
    assert torch.equal(model(x, time, nothing), model(x, time, condition._replace(frames=None)))
    assert not torch.equal(model(x, time, nothing), model(x, time, condition))


def test_cross_attention_is_a_weighted_mean_of_what_the_mask_shows() -> None:
    torch.manual_seed(0)
    layer = CrossAttention(FlexiDiTConfig(width=32, num_heads=2, text_channels=8))
    torch.nn.init.normal_(layer.out.weight)
    x, tokens, mask = torch.randn(1, 3, 32), torch.randn(1, 4, 32), torch.tensor([[True, False, True, True]])
    keys, values = layer.read(tokens)
    queries = layer.q_norm(layer.q(layer.norm(x)).view(1, 3, 2, 16))
    rows = []
    for n in range(3):
        heads = []
        for k in range(2):
            scores = torch.stack([queries[0, n, k] @ keys[0, m, k] / 4 for m in (0, 2, 3)])
            heads.append((scores.softmax(0)[:, None] * values[0, [0, 2, 3], k]).sum(0))
        rows.append(torch.cat(heads))
    torch.testing.assert_close(layer(x, keys, values, mask)[0], layer.out(torch.stack(rows)))


def test_bfloat16_on_a_cpu_agrees(model: FlexiDiT) -> None:
    x, time, condition = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        half = model(x, time, condition)
    full = model(x, time, condition)
    assert (half.float() - full).norm() < 0.05 * full.norm()


def test_what_does_not_fit_is_refused(model: FlexiDiT) -> None:
    x, time, condition = inputs()
    with pytest.raises(ValueError, match=r"got text features of shape \(2, 5, 7\); expected \(2, l, 24\)"):
        model(x, time, condition._replace(text=Text(torch.zeros(2, 5, 7))))
    with pytest.raises(ValueError, match="text mask"):
        model(x, time, condition._replace(text=Text(condition.text.features, torch.ones(2, 4).bool())))
    with pytest.raises(ValueError, match="given frames"):
        model(x, time, condition._replace(frames=Frames(x[:, :, :1], x[:, :1, :1])))
    with pytest.raises(ValueError, match="a network without"):
        FlexiDiT(config(text_channels=0, given_frames=False))(x, time, condition._replace(frames=None))
