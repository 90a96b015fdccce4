"""A weak token stands where the native tokens that it replaces have their centre, in every family."""

import pytest
import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed

from flexivid.patching.shapes import PatchMode, Size3
from flexivid.pretrained.families.cogvideox import CogVideoXEmbedding
from flexivid.pretrained.families.cosmos import CosmosPositions, CosmosTable
from flexivid.pretrained.families.dit import CentredPatchEmbed
from flexivid.pretrained.families.folding import Fold
from flexivid.pretrained.families.hunyuan import HunyuanPositions
from flexivid.pretrained.families.latte import CentredFramePositions, FrameTable
from flexivid.pretrained.families.ltx import LTX
from flexivid.pretrained.families.positions import centre_rotary
from flexivid.pretrained.families.wan import WanPositions
from flexivid.pretrained.flexify import flexify, set_mode
from tests.pretrained.families import CASES, VARIANTS, build, call

NATIVE = PatchMode("1x2x2")
ROPES = {"wan2.1": WanPositions, "hunyuan": HunyuanPositions}
by_name = {case.name: case for case in CASES}


@pytest.mark.parametrize("name", ROPES)
def test_without_growth_positions_are_the_native_ones(name) -> None:
    rope, latent = build(by_name[name]).rope, torch.zeros(1, 4, 3, 4, 6)
    for ours, native in zip(ROPES[name](rope, Fold(Size3(1, 1, 1), NATIVE))(latent), rope(latent), strict=True):
        torch.testing.assert_close(ours, native)


@pytest.mark.parametrize("name", ROPES)
def test_a_patch_of_three_stands_on_its_middle_token(name) -> None:
    rope, growth = build(by_name[name]).rope, Size3(3, 3, 3)
    weak = ROPES[name](rope, Fold(growth, NATIVE))(torch.zeros(1, 4, 2, 2, 4))  # 2 x 1 x 2 tokens
    for ours, native in zip(weak, rope(torch.zeros(1, 4, 6, 6, 12)), strict=True):  # 6 x 3 x 6 tokens
        middle = native.squeeze().unflatten(0, (6, 3, 6))[1::3, 1::3, 1::3].flatten(0, 2)
        torch.testing.assert_close(ours.squeeze(), middle)


@pytest.mark.parametrize("scale", [(8 / 25, 32, 32), None])
def test_ltx_coordinates_give_the_native_rotation_of_the_middle_token(scale) -> None:
    case = by_name["ltx"]
    rope, size = build(case).rope, (3, 3, 6)
    arguments = call(case, size) | {"rope_interpolation_scale": scale}
    native = rope(arguments["hidden_states"], *size, rope_interpolation_scale=scale)
    LTX.fold_call(arguments, Fold(Size3(3, 3, 3), PatchMode("1x1x1")))
    weak = rope(arguments["hidden_states"], video_coords=arguments["video_coords"])
    for ours, table in zip(weak, native, strict=True):
        torch.testing.assert_close(ours[0], table[0].unflatten(0, size)[1, 1, 1::3], rtol=1e-3, atol=1e-3)


def test_ltx_means_coordinates_that_are_given() -> None:
    case = by_name["ltx"]
    arguments = call(case, (2, 1, 2)) | {"video_coords": torch.arange(12.0).view(1, 3, 4)}
    LTX.fold_call(arguments, Fold(Size3(2, 1, 1), PatchMode("1x1x1")))
    assert arguments["video_coords"].tolist() == [[[1.0, 2.0], [5.0, 6.0], [9.0, 10.0]]]


@pytest.mark.parametrize("growth", [Size3(3, 3, 3), Size3(1, 3, 1)])
def test_cogvideox_tables_are_turned_to_the_middle_token(growth) -> None:
    grid = Size3(3, 3, 6)
    tables = get_3d_rotary_pos_embed(16, ((0, 0), (2.0, 7.5)), grid[1:], grid.t)
    starts = [slice(factor // 2, None, factor) for factor in growth]
    for ours, native in zip(centre_rotary(tables, grid, growth), tables, strict=True):
        torch.testing.assert_close(ours, native.unflatten(0, tuple(grid))[tuple(starts)].flatten(0, 2))


def test_cogvideox_adds_the_table_at_the_middle_token() -> None:
    native = build(by_name["cogvideox-2b"]).patch_embed
    text = torch.randn(1, 6, 16)
    latent = torch.zeros(1, 3, 4, 6, 12)
    with torch.no_grad():
        native.proj.bias.zero_()
        middle = native(text, latent)[:, 6:].unflatten(1, (3, 3, 6))[:, 1::3, 1::3, 1::3].flatten(1, 3)
        weak = CogVideoXEmbedding(native, Fold(Size3(3, 3, 3), NATIVE))(text, torch.zeros(1, 1, 4, 2, 4))
    torch.testing.assert_close(weak[:, 6:], middle)


def middle_tokens(table: torch.Tensor, grid: tuple[int, int, int], growth: Size3) -> torch.Tensor:
    """Of every weak token with odd growth, the native one that it stands on; (n, ...) tables."""
    starts = tuple(slice(factor // 2, None, factor) for factor in growth)
    return table.unflatten(0, grid)[starts].flatten(0, 2)


@pytest.mark.parametrize("growth", [Size3(1, 1, 1), Size3(3, 3, 3), Size3(1, 3, 1)])
@pytest.mark.parametrize("fps", [None, 16])
def test_cosmos_rotates_as_the_middle_token(growth, fps) -> None:
    rope, grid = build(by_name["cosmos"]).rope, (3, 3, 6)
    folded = torch.zeros(1, 4, 3 // growth.t, 6 // growth.h, 12 // growth.w)
    native = rope(torch.zeros(1, 4, 3, 6, 12), fps=fps)
    for ours, table in zip(CosmosPositions(rope, Fold(growth, NATIVE))(folded, fps=fps), native, strict=True):
        torch.testing.assert_close(ours, middle_tokens(table, grid, growth))


@pytest.mark.parametrize("growth", [Size3(1, 1, 1), Size3(3, 3, 3)])
def test_cosmos_adds_the_learned_table_of_the_middle_token(growth) -> None:
    native = build(by_name["cosmos"]).learnable_pos_embed
    folded = torch.zeros(1, 4, 3 // growth.t, 6 // growth.h, 12 // growth.w)
    expected = middle_tokens(native(torch.zeros(1, 4, 3, 6, 12))[0], (3, 3, 6), growth)
    torch.testing.assert_close(CosmosTable(native, Fold(growth, NATIVE))(folded)[0], expected)


@pytest.mark.parametrize("name", ["dit", "latte"])
@pytest.mark.parametrize(("growth", "side"), [(1, 8), (1, 12), (3, 12)])
def test_dit_and_latte_add_the_sinusoids_of_the_middle_token(name, growth, side) -> None:
    native = build(by_name[name]).pos_embed
    with torch.no_grad():
        native.proj.bias.zero_()
        table = native(torch.zeros(1, 4, side, side))[0]
        weak = CentredPatchEmbed(native, Fold(Size3(1, growth, growth), NATIVE))
        got = weak(torch.zeros(1, 4, side // growth, side // growth))[0]
    tokens = (1, side // 2, side // 2)
    torch.testing.assert_close(got, middle_tokens(table, tokens, Size3(1, growth, growth)), rtol=1e-4, atol=1e-5)


def test_latte_adds_the_sinusoids_between_its_frames() -> None:
    model = build(by_name["latte"])
    table = FrameTable(model, Fold(Size3(3, 1, 1), NATIVE)).to(torch.float32)
    assert table.shape == (1, 2, 24)  # 5 frames, and one that is padding
    torch.testing.assert_close(table[0, 0], model.temp_pos_embed[0, 1])
    torch.testing.assert_close(table[0, 1], model.temp_pos_embed[0, 4])


def test_class_conditional_latte_interpolates_its_frames() -> None:
    native = build(by_name["video-dit"]).temporal_positions
    with torch.no_grad():
        got = CentredFramePositions(native, Fold(Size3(2, 1, 1), NATIVE))(torch.zeros(1, 3, 24))[0]
    rows = native.weight[0]
    torch.testing.assert_close(got, torch.stack([rows[:2].mean(0), rows[2:4].mean(0), rows[4]]))


def test_dit_takes_squares_only() -> None:
    case = by_name["dit"]
    with pytest.raises(ValueError, match="expected as many rows as columns"):
        flexify(build(case), ["1x4x8"], rank=0)
    with pytest.raises(ValueError, match="expected one larger along h w only"):
        flexify(build(case), ["2x2x2"], rank=0)
    model = set_mode(flexify(build(case), ["1x4x4"], rank=0), "1x4x4")
    with pytest.raises(ValueError, match="got a latent of 8 x 4 cells; expected a square"):
        model(**call(case, (1, 8, 4)))


def test_cosmos_refuses_what_belongs_to_native_tokens() -> None:
    case = by_name["cosmos"]
    model = set_mode(flexify(build(case), ["1x4x4"], rank=0), "1x4x4")
    with pytest.raises(ValueError, match="residuals of a ControlNet"):
        model(**call(case, (4, 8, 8)), block_controlnet_hidden_states=[torch.zeros(1)])


def test_ltx_tokens_without_a_grid_are_refused() -> None:
    arguments = call(by_name["ltx"], (2, 2, 2))
    del arguments["num_frames"]
    with pytest.raises(ValueError, match="got 8 tokens with num_frames"):
        LTX.fold_call(arguments, Fold(Size3(2, 1, 1), PatchMode("1x1x1")))


def test_cogvideox_learned_positions_need_their_size() -> None:
    case = next(case for case in VARIANTS if case.name == "cogvideox-i2v")
    model = set_mode(flexify(build(case), ["1x4x4"], rank=0), "1x4x4")
    with pytest.raises(ValueError, match="for which this model learned positions"):
        model(**call(case, (4, 6, 8)))
