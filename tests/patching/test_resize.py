"""Upsizing keeps embeddings, three small pseudo-inverses equal the big one, and downsizing is the best fit there is."""

import pytest
import torch
import torch.nn.functional as F

from flexivid.patching.resize import area_matrix, bilinear_matrix, embedding_dual, output_dual, pi_resize
from tests.reference.patches import resize_embedding, resize_matrix, resize_output

PAIRS = [  # old, new: up, down, both at once, odd sides, unchanged axes
    ((1, 2, 2), (2, 4, 4)),
    ((1, 2, 2), (1, 4, 4)),
    ((2, 4, 4), (1, 2, 2)),
    ((2, 4, 4), (2, 4, 4)),
    ((2, 2, 4), (4, 4, 2)),
    ((1, 2, 3), (3, 5, 4)),
    ((4, 3, 5), (1, 2, 3)),
    ((3, 1, 2), (2, 4, 2)),
]
UP = [pair for pair in PAIRS if all(new >= old for old, new in zip(*pair, strict=True))]
DOWN = [pair for pair in PAIRS if all(new <= old for old, new in zip(*pair, strict=True))]


def duals(dual, old, new):
    return [dual(*sides) for sides in zip(old, new, strict=True)]


def bilinear_dual(old, new):
    return embedding_dual(old, new, "bilinear")


def random_weight(side, *, seed=0):
    return torch.randn(3, 2, *side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def best_fit(matrix, weight, side):
    """The least of all kernels k that come closest to matrix @ k = weight."""
    return torch.linalg.lstsq(matrix, weight.flatten(2).flatten(0, 1).T, driver="gelsd").solution.T.view(3, 2, *side)


@pytest.mark.parametrize("old", range(1, 7))
@pytest.mark.parametrize("new", range(1, 7))
def test_matrix_is_pytorch_interpolation(old, new):
    x = torch.randn(1, 5, old, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = F.interpolate(x, size=new, mode="linear", align_corners=False, antialias=False)
    torch.testing.assert_close(x @ bilinear_matrix(old, new).T, expected, rtol=0, atol=1e-14)
    assert bilinear_matrix(old, new).sum(1).tolist() == pytest.approx([1] * new, abs=1e-14)


@pytest.mark.parametrize("old", range(1, 10))
@pytest.mark.parametrize("new", range(1, 6))
def test_area_matrix_averages_equal_stretches(old, new):
    """Each cell as ``new`` equal ones: stretches are then whole numbers of these."""
    x = torch.randn(5, old, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = x.repeat_interleave(new, dim=1).unflatten(1, (new, old)).mean(2)
    torch.testing.assert_close(x @ area_matrix(old, new).T, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("old", range(1, 10))
def test_area_and_bilinear_agree_down_to_half(old):
    for new in range((old + 1) // 2, 3 * old):
        assert torch.equal(embedding_dual(old, new), bilinear_dual(old, new))
    torch.testing.assert_close(area_matrix(2 * old, old), bilinear_matrix(2 * old, old), rtol=0, atol=1e-15)


@pytest.mark.parametrize("side", [1, 2, 3])
@pytest.mark.parametrize("growth", [2.5, 3, 4, 8])
def test_every_cell_counts_alike_where_a_side_shrinks_far(side, growth):
    """Of small kernels that are 1 everywhere, lifted, and of large ones: the weight that each cell is read with."""
    large = int(side * growth)
    dual = embedding_dual(large, side)
    torch.testing.assert_close(dual.sum(0), torch.ones(large).double())
    torch.testing.assert_close(torch.linalg.pinv(dual).sum(1), torch.full((large,), side / large).double())
    torch.testing.assert_close(dual @ torch.linalg.pinv(dual), torch.eye(side).double())  # lifted kernels come back
    if growth >= 3:
        assert (bilinear_dual(large, side).sum(0).abs() < 1e-12).any()  # what it is there for
    assert (output_dual(large, side).abs().sum(0) > 0.01).all()  # outputs are interpolated: nothing to mend


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_three_small_inverses_equal_the_big_one(old, new):
    weight = random_weight(old)
    embedding = pi_resize(weight, *duals(bilinear_dual, old, new))
    torch.testing.assert_close(embedding, resize_embedding(weight, new), rtol=0, atol=1e-10)
    output = pi_resize(weight, *duals(output_dual, old, new))
    torch.testing.assert_close(output, resize_output(weight, new), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("old", "new"), UP)
def test_upsizing_keeps_embeddings(old, new):
    weight, patch = random_weight(old), random_weight(old, seed=1)
    resized = F.interpolate(patch, size=new, mode="trilinear", align_corners=False)
    kernel = pi_resize(weight, *duals(embedding_dual, old, new))
    torch.testing.assert_close((kernel * resized).sum((1, 2, 3, 4)), (weight * patch).sum((1, 2, 3, 4)))


@pytest.mark.parametrize(("old", "new"), DOWN)
def test_downsizing_outputs_then_resizing_keeps_what_a_small_patch_can_hold(old, new):
    small = random_weight(new)
    large = F.interpolate(small, size=old, mode="trilinear", align_corners=False)
    torch.testing.assert_close(pi_resize(large, *duals(output_dual, old, new)), small)


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_no_other_embedding_fits_better(old, new):
    """Error of <B x, w(p)> against <x, w> over white patches x is |B^T w(p) - w|^2."""
    weight = random_weight(old)
    kernel = pi_resize(weight, *duals(bilinear_dual, old, new))
    torch.testing.assert_close(kernel, best_fit(resize_matrix(old, new).T, weight, new))


def test_no_other_embedding_of_averaged_patches_fits_better():
    """As above, with PyTorch's average pooling as B."""
    old, new = (3, 8, 6), (1, 2, 2)
    units = torch.eye(3 * 8 * 6, dtype=torch.float64).view(-1, 1, *old)
    pooled = F.avg_pool3d(units, (3, 4, 3)).flatten(1)  # B^T
    kernel = pi_resize(random_weight(old), *duals(embedding_dual, old, new))
    torch.testing.assert_close(kernel, best_fit(pooled, random_weight(old), new))


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_no_other_output_fits_better(old, new):
    weight = random_weight(old)
    kernel = pi_resize(weight, *duals(output_dual, old, new))
    torch.testing.assert_close(kernel, best_fit(resize_matrix(new, old), weight, new))


def test_doubled_kernels_in_closed_form():
    """Embedding: each weight repeated and halved an axis. De-embedding: linear interpolation inside the patch."""
    assert torch.linalg.pinv(embedding_dual(4, 2)).mul(4).round(decimals=9).tolist() == [[2, 0], [2, 0], [0, 2], [0, 2]]
    assert torch.linalg.pinv(embedding_dual(2, 1)).mul(4).round(decimals=9).tolist() == [[2], [2]]
    interpolation = [[4, 0], [3, 1], [1, 3], [0, 4]]
    assert torch.linalg.pinv(output_dual(4, 2)).mul(4).round(decimals=9).tolist() == interpolation
    assert torch.linalg.pinv(output_dual(2, 1)).mul(4).round(decimals=9).tolist() == [[4], [4]]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_dual_that_does_not_fit_is_named(axis):
    wrong = duals(embedding_dual, (2, 2, 2), (4, 4, 4))
    wrong[axis] = embedding_dual(3, 4)
    with pytest.raises(ValueError, match=rf"got a dual \(4, 3\) for axis {axis - 3} .*; expected \(new, 2\); build"):
        pi_resize(torch.zeros(1, 1, 2, 2, 2), *wrong)
