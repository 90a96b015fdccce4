"""A weak token stands where the native tokens that it replaces have their centre, in every family."""

import pytest
import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed

from flexivid.patching.shapes import PatchMode, Size3
from flexivid.pretrained.cogvideox import CogVideoXEmbedding
from flexivid.pretrained.family import Fold
from flexivid.pretrained.flexify import flexify, set_mode
from flexivid.pretrained.hunyuan import HunyuanPositions
from flexivid.pretrained.ltx import LTX
from flexivid.pretrained.rotary import centre_rotary
from flexivid.pretrained.wan import WanPositions
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
