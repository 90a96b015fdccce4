"""The closed forms of METHOD: the native embedding of the pooled latent, bilinear patches, duplicated frames."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from flexivid.patching.shapes import PatchMode, Size3
from flexivid.pretrained.families.folding import Fold
from flexivid.pretrained.weak_modes.layers import Embedding, Unembedding, grow_output

NATIVE = PatchMode("1x2x2")


@pytest.mark.parametrize("growth", [(2, 1, 1), (1, 2, 2), (2, 2, 2), (2, 4, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_embedding_is_the_native_one_of_the_pooled_latent(growth, bias) -> None:
    fold = Fold(Size3(*growth), NATIVE)
    native = nn.Conv3d(4, 16, tuple(NATIVE), tuple(NATIVE), bias=bias)
    latent = torch.randn(2, 4, 4, 16, 12)
    weak = Embedding.grow(native, 4, fold)(fold.apply(latent))
    torch.testing.assert_close(weak, native(F.avg_pool3d(latent, growth)))


def test_a_linear_embedding_of_patches_grows_like_a_convolution() -> None:
    fold = Fold(Size3(2, 2, 2), PatchMode("2x2x2"))
    conv = nn.Conv3d(3, 8, (2, 2, 2), (2, 2, 2))
    linear = nn.Linear(24, 8)
    linear.load_state_dict({"weight": conv.weight.flatten(1), "bias": conv.bias})
    by_conv, by_linear = Embedding.grow(conv, 3, fold), Embedding.grow(linear, 3, fold)
    assert torch.equal(by_conv.layer.weight.flatten(1), by_linear.layer.weight)


@pytest.mark.parametrize("order", ["pt ph pw c", "c pt ph pw", "ph pw pt c"])
@pytest.mark.parametrize("growth", [(2, 1, 1), (1, 2, 2), (2, 2, 3)])
def test_de_embedding_is_bilinear_in_space_and_repeats_frames(order, growth) -> None:
    fold = Fold(Size3(*growth), NATIVE)
    native = nn.Linear(16, 12)
    tokens = torch.randn(2, 5, 16)
    weak = Unembedding.grow(native, Embedding(native), fold, order)(tokens)
    sides = {"pt": 1, "ph": 2, "pw": 2}
    patches = rearrange(native(tokens), f"b n ({order}) -> (b n) c pt ph pw", **sides)
    inner = order.replace("c", "c gt gh gw")
    folded = rearrange(weak, f"b n ({inner}) -> (b n) (c gt gh gw) pt ph pw", **sides, gt=growth[0], gh=growth[1],
                       gw=growth[2])  # fmt: skip
    got = fold.undo(folded, Size3(*(side * g for side, g in zip(NATIVE, growth, strict=True))))
    expected = F.interpolate(patches[:, :, 0], scale_factor=growth[1:], mode="bilinear")
    torch.testing.assert_close(got, expected[:, :, None].repeat_interleave(growth[0], 2))


def test_constant_patches_stay_constant() -> None:
    assert torch.allclose(grow_output(torch.ones(16), Fold(Size3(2, 3, 2), NATIVE), "pt ph pw c"), torch.ones(16 * 12))


def test_new_layers_compute_in_their_own_precision() -> None:
    native = nn.Conv3d(4, 8, (1, 2, 2), (1, 2, 2)).bfloat16()
    weak = Embedding.grow(native, 4, Fold(Size3(1, 2, 2), NATIVE))
    out = weak(torch.randn(1, 16, 1, 4, 4).bfloat16())
    assert weak.layer.weight.dtype == torch.float32
    assert out.dtype == torch.bfloat16


def test_a_layer_that_is_neither_linear_nor_convolution_is_refused() -> None:
    with pytest.raises(ValueError, match="got a patch layer LayerNorm; expected a linear or a convolution"):
        Embedding.grow(nn.LayerNorm(4), 4, Fold(Size3(1, 2, 2), NATIVE))
