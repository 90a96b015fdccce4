"""The native mode is a plain convolution, lifted weights are kept, and no cell is lost on the way there and back."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from flexivid.patching.embed import FlexiPatchEmbed, FlexiPatchOutput, pad_to, patchify, unpatchify
from flexivid.patching.shapes import PatchMode, Size3, grid_of
from tests.reference import patches as reference

SETS = [  # native first: nested, weak only in one axis, sides that do not divide each other, native not the smallest
    ("1x2x2", "2x2x2", "1x4x4", "2x4x4"),
    ("2x4x4", "4x8x8"),
    ("2x3x2", "1x2x5", "3x3x3"),
    ("1x4x4", "2x2x2", "1x1x1"),
    ("1x2x2", "1x8x8", "4x4x2"),
]
SIZES = [(4, 8, 8), (21, 3, 4), (5, 15, 7), (1, 1, 1)]
ALL = list(itertools.product(sorted({mode for modes in SETS for mode in modes}), SIZES))


def modes_of(written):
    return tuple(PatchMode(mode) for mode in written)


def latent_of(size, channels=3):
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(0))


def padded(latent, mode):
    """PyTorch's own padding by the edge."""
    missing = [-side % patch for side, patch in zip(latent.shape[2:], mode, strict=True)]
    return F.pad(latent, [number for axis in reversed(missing) for number in (0, axis)], mode="replicate")


def average_pooled(latent, ratio):
    return F.avg_pool3d(latent, ratio, stride=ratio)


@pytest.mark.parametrize(("mode", "size"), ALL)
def test_patches_come_back_and_equal_loops(mode, size):
    mode, latent = PatchMode(mode), latent_of(size)
    patches = patchify(latent, mode)
    assert torch.equal(patches, reference.patchify(latent, mode))
    assert patches.shape[-1] == 3 * mode.volume
    assert torch.equal(unpatchify(patches, mode, Size3(*size)), latent)


@pytest.mark.parametrize(("mode", "size"), ALL)
def test_padding_repeats_the_last_frame_row_and_column(mode, size):
    assert torch.equal(pad_to(latent_of(size), PatchMode(mode)), padded(latent_of(size), PatchMode(mode)))


@pytest.mark.parametrize("written", SETS)
@pytest.mark.parametrize("size", SIZES)
def test_embedding_is_a_convolution_in_every_mode(written, size):
    modes, latent = modes_of(written), latent_of(size)
    embed = FlexiPatchEmbed(3, 8, modes)
    torch.nn.init.normal_(embed.bias)
    for mode in modes:
        expected = F.conv3d(padded(latent, mode), embed.kernel(mode), embed.bias, stride=mode)
        torch.testing.assert_close(embed(latent, mode), expected.flatten(2).mT, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("written", SETS)
@pytest.mark.parametrize("size", SIZES)
def test_output_is_a_transposed_convolution_in_every_mode(written, size):
    modes = modes_of(written)
    out = FlexiPatchOutput(8, 3, modes)
    torch.nn.init.normal_(out.weight)
    torch.nn.init.normal_(out.bias)
    for mode in modes:
        grid, (weight, bias) = grid_of(size, mode), out.kernel(mode)
        tokens = torch.randn(2, grid.volume, 8)
        expected = F.conv_transpose3d(tokens.mT.unflatten(2, grid), weight, stride=mode) + bias.repeat(1, *grid)
        expected = expected[:, :, : size[0], : size[1], : size[2]]
        torch.testing.assert_close(out(tokens, mode, Size3(*size)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("written", SETS)
def test_lifted_embedding_equals_the_native_convolution(written):
    modes = modes_of(written)
    embed, plain = FlexiPatchEmbed(3, 8, modes), torch.nn.Conv3d(3, 8, modes[0], stride=modes[0])
    embed.weight.data, embed.bias.data = embed.lift(plain.weight.data), plain.bias.data
    torch.testing.assert_close(embed.kernel(modes[0]), plain.weight, rtol=1e-5, atol=1e-6)
    latent = latent_of((6, 12, 12))
    torch.testing.assert_close(embed(latent, modes[0]), plain(latent).flatten(2).mT, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("written", SETS)
def test_lifted_output_gives_the_native_output(written):
    modes = modes_of(written)
    out, native = FlexiPatchOutput(8, 3, modes), torch.randn(8, 3, *modes[0])
    out.weight.data, out.bias.data = out.lift(native), out.lift(native[0])
    weight, bias = out.kernel(modes[0])
    torch.testing.assert_close(weight, native, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(bias, native[0], rtol=1e-5, atol=1e-5)


def test_new_embedding_starts_as_the_native_initialisation():
    torch.manual_seed(0)
    embed = FlexiPatchEmbed(3, 64, modes_of(SETS[0]))
    kernel = embed.kernel(embed.modes[0]).flatten(1)
    limit = (6 / (64 + 12)) ** 0.5  # Xavier of a layer 12 -> 64
    assert 0.98 * limit < kernel.abs().max() <= limit * (1 + 1e-6)
    assert kernel.std().item() == pytest.approx(limit / 3**0.5, rel=0.05)


@pytest.mark.parametrize("mode", ["2x2x2", "1x4x4", "2x4x4"])
def test_doubled_modes_in_closed_form(mode):
    """Embedding: the native one of the average-pooled latent. De-embedding: native patches, linear in between."""
    mode, modes = PatchMode(mode), modes_of(SETS[0])
    native, latent = torch.randn(8, 3, 1, 2, 2), latent_of((4, 8, 8))
    ratio = tuple(large // small for large, small in zip(mode, modes[0], strict=True))
    embed, out = FlexiPatchEmbed(3, 8, modes), FlexiPatchOutput(8, 3, modes)
    embed.weight.data, out.weight.data = embed.lift(native), out.lift(native)

    repeated = native
    for axis, times in enumerate(ratio, 2):
        repeated = repeated.repeat_interleave(times, axis) / times
    torch.testing.assert_close(embed.kernel(mode), repeated, rtol=1e-5, atol=1e-6)
    pooled = F.conv3d(average_pooled(latent, ratio), native, stride=modes[0]).flatten(2).mT
    torch.testing.assert_close(embed(latent, mode), pooled, rtol=1e-5, atol=1e-5)

    bilinear = F.interpolate(native, size=mode, mode="trilinear", align_corners=False)
    torch.testing.assert_close(out.kernel(mode)[0], bilinear, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["1x4x4", "1x8x8", "4x2x2", "4x16x8", "1x6x6"])
def test_a_new_mode_embeds_the_average_pooled_latent_however_large_it_is(mode):
    """So every cell of its patch counts alike, with the weight that cells have in the native mode over the growth."""
    mode, modes = PatchMode(mode), (PatchMode("1x2x2"), PatchMode("2x4x4"), PatchMode(mode))
    native, latent = torch.randn(8, 3, 1, 2, 2), latent_of((8, 48, 48))
    embed = FlexiPatchEmbed(3, 8, modes)
    embed.weight.data = embed.lift(native)
    torch.testing.assert_close(embed.kernel(modes[0]), native, rtol=1e-5, atol=1e-6)
    growth = tuple(large // small for large, small in zip(mode, modes[0], strict=True))
    pooled = F.conv3d(average_pooled(latent, growth), native, stride=modes[0]).flatten(2).mT
    torch.testing.assert_close(embed(latent, mode), pooled, rtol=1e-5, atol=1e-5)


def test_bilinear_reads_what_it_read_before_there_was_a_choice():
    """A quarter of the cells of 1x8x8, those next to the centres of 1x2x2."""
    modes = modes_of(("1x2x2", "1x8x8"))
    area, bilinear = FlexiPatchEmbed(3, 8, modes), FlexiPatchEmbed(3, 8, modes, resize="bilinear")
    kernel = bilinear.lift(torch.ones(8, 3, 1, 2, 2))[0, 0, 0]
    line = torch.tensor([0, 0.5, 0.5, 0, 0, 0.5, 0.5, 0])
    torch.testing.assert_close(kernel, line[:, None] * line)
    torch.testing.assert_close(area.lift(torch.ones(8, 3, 1, 2, 2))[0, 0, 0], torch.full((8, 8), 1 / 16))


@pytest.mark.parametrize("layer", [FlexiPatchEmbed(3, 8, modes_of(SETS[0])), FlexiPatchOutput(8, 3, modes_of(SETS[0]))])
def test_duals_move_with_the_layer_and_are_not_saved(layer):
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert len(list(layer.buffers())) == 3 * 4
    assert {buffer.dtype for buffer in layer.bfloat16().buffers()} == {torch.bfloat16}
    assert layer.lift(torch.zeros(8, 3, 1, 2, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_new_output_is_zero():
    out = FlexiPatchOutput(8, 3, modes_of(SETS[0]))
    assert all(out(torch.randn(1, 1, 8), mode, Size3(*mode)).abs().max() == 0 for mode in out.modes)
