"""Blended tiles of a function that looks at single cells are the whole; no cell is left out."""

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F

from flexivid.latents.tiles import in_tiles


@pytest.mark.parametrize("size", [(8, 8), (9, 30), (31, 17), (16, 40)])
@pytest.mark.parametrize("tile", [4, 8, 12])
def test_cells_alone(size, tile):
    x = torch.randn(1, 2, 3, *size)
    assert torch.allclose(in_tiles(lambda part: 3 * part + 1, x, tile), 3 * x + 1, atol=1e-5)


def test_scales_up_and_down():
    x, shapes = torch.randn(1, 4, 1, 16, 40), []

    def up(part):
        shapes.append(tuple(part.shape[-2:]))
        return part.repeat_interleave(2, -1).repeat_interleave(2, -2)

    assert torch.allclose(in_tiles(up, x, 8, scale=Fraction(2)), up(x), atol=1e-6)
    assert set(shapes[:-1]) == {(8, 8)}
    down = in_tiles(lambda part: F.avg_pool2d(part[:, :, 0], 4)[:, :, None], x, 16, unit=4, scale=Fraction(1, 4))
    assert torch.allclose(down[:, :, 0], F.avg_pool2d(x[:, :, 0], 4), atol=1e-6)


def test_one_tile_is_the_whole_bit_for_bit():
    x = torch.randn(1, 2, 3, 8, 8)
    assert torch.equal(in_tiles(torch.sin, x, 8), torch.sin(x))
