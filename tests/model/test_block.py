"""A new block changes nothing; a trained one equals the plain formula, with masks where attention is factorised."""

import pytest
import torch

from flexivid.model.block import Block, SelfAttention, Tokens, modulate
from flexivid.model.config import FlexiDiTConfig
from flexivid.patching.position import axis_angles
from tests.reference import network as reference

GRID = (3, 2, 4)
CONFIG = FlexiDiTConfig(width=24, num_heads=2, depth=1)


@pytest.fixture
def inputs():
    """Tokens, steering, what the block is told of them, and the angles that is made from."""
    generator = torch.Generator().manual_seed(0)
    x, steering = torch.randn(2, 24, 24, generator=generator), torch.randn(2, 24, generator=generator)
    angles = axis_angles(4 * torch.rand(24, 3, generator=generator), CONFIG.head_dim, base=100.0)
    cos, sin = (torch.cat(pair, -1)[:, None] for pair in ((angles.cos(),) * 2, (-angles.sin(), angles.sin())))
    return x.double(), steering.double(), Tokens(cos, sin, GRID[0]), angles


def awake(layer):
    torch.manual_seed(0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return layer.double()


@pytest.mark.parametrize("axes", ["joint", "space", "time"])
def test_new_block_is_the_identity(inputs, axes):
    x, steering, tokens, _ = inputs
    assert torch.equal(Block(CONFIG, axes).double()(x, steering, tokens), x)


@pytest.mark.parametrize("axes", ["joint", "space", "time"])
def test_attention_equals_masked_attention(inputs, axes):
    x, _, tokens, angles = inputs
    layer = awake(SelfAttention(CONFIG, axes))
    expected = reference.self_attention(layer, x, angles, GRID)
    torch.testing.assert_close(layer(x, tokens), expected, rtol=1e-5, atol=1e-5)  # tables are float32


@pytest.mark.parametrize("axes", ["joint", "space", "time"])
def test_block_equals_the_plain_formula(inputs, axes):
    x, steering, tokens, angles = inputs
    layer = awake(Block(CONFIG, axes))
    expected = reference.block(layer, x, steering, angles, GRID)
    torch.testing.assert_close(layer(x, steering, tokens), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(expected, x, atol=0.1)


@pytest.mark.parametrize("axes", ["space", "time"])
def test_one_token_reaches_its_frame_or_its_place_alone(inputs, axes):
    x, steering, tokens, _ = inputs
    layer, changed = awake(Block(CONFIG, axes)), x.clone()
    changed[:, 13] += 1  # frame 1, place 5
    moved = (layer(changed, steering, tokens) - layer(x, steering, tokens)).abs().amax((0, 2)) > 0
    expected = [i // 8 == 1 if axes == "space" else i % 8 == 5 for i in range(24)]
    assert moved.tolist() == expected


def test_modulation_is_norm_then_scale_and_shift(inputs):
    x, steering, _, _ = inputs
    shift, scale = steering[:, None], steering.flip(0)[:, None]
    torch.testing.assert_close(modulate(x, shift, scale), reference.norm(x) * (1 + scale) + shift)
    torch.testing.assert_close(
        modulate(x, 0 * shift, 0 * scale), modulate(5 * x, 0 * shift, 0 * scale), rtol=0, atol=1e-5
    )
