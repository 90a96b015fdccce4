"""Every way of computing attention gives the same result, and rotated products see only how far tokens are apart."""

import warnings

import pytest
import torch

from flexivid.model import attention
from flexivid.model.attention import _bmm_attention, attend, rotate
from flexivid.patching.position import axis_angles
from tests.reference.attention import attention as plain_attention
from tests.reference.attention import rotary


def qkv_of(shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(3)]


def tables(angles):
    """Cosines and sines as ``rotate`` wants them."""
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), -1)[:, None], torch.cat((-sin, sin), -1)[:, None]


@pytest.mark.parametrize("shape", [(2, 12, 3, 8), (1, 1, 2, 16), (4, 65, 1, 6)])
def test_all_paths_equal_the_plain_formula(shape):
    qkv = qkv_of(shape)
    expected = plain_attention(*qkv).float()
    for result in (attend(*qkv), _bmm_attention(*qkv)):
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_bf16_takes_bmm_up_to_a_limit_and_gives_the_same(monkeypatch):
    taken, qkv = [], qkv_of((2, 33, 2, 16), torch.bfloat16)
    monkeypatch.setattr(attention, "_bmm_attention", lambda *args: taken.append(1) or _bmm_attention(*args))
    below = attend(*qkv)
    monkeypatch.setattr(attention, "BMM_LIMIT_BYTES", 2 * 2 * 33 * 33 * 2 - 1)
    above = attend(*qkv)
    assert len(taken) == 1
    for result in (below, above):
        assert result.dtype == torch.bfloat16
        torch.testing.assert_close(result.double(), plain_attention(*qkv), rtol=0, atol=0.02)


def test_xformers_without_an_operator_warns_once_and_gives_the_same():
    attention._xformers_operator.cache_clear()
    qkv = qkv_of((2, 12, 3, 8))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = [attend(*qkv, "xformers") for _ in range(3)]
    ours = [str(warning.message) for warning in caught if "attention_backend" in str(warning.message)]
    assert len(ours) == 1
    assert ours[0].startswith("got attention_backend='xformers' on cpu, where it has no operator (")
    assert all(torch.equal(result, attend(*qkv)) for result in results)


def test_xformers_is_used_where_it_has_an_operator(monkeypatch):
    monkeypatch.setattr(attention, "_xformers_operator", lambda device: plain_attention)
    qkv = qkv_of((2, 12, 3, 8))
    assert torch.equal(attend(*qkv, "xformers"), plain_attention(*qkv))
    assert attend(*qkv, "sdpa").dtype == torch.float32


def one_dtype_only(q, k, v):
    """As xformers' operator, which takes no mixed inputs."""
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"Query/Key/Value should either all have the same dtype; got {q.dtype}, {k.dtype}, {v.dtype}")
    return plain_attention(q, k, v).to(v.dtype)


@pytest.mark.parametrize("backend", ["xformers", "sdpa"])
@pytest.mark.parametrize("limit", [0, attention.BMM_LIMIT_BYTES])
def test_queries_and_keys_may_be_float32_beside_bf16_values(monkeypatch, backend, limit):
    """On GPUs, layer norms answer in float32 under autocast."""
    monkeypatch.setattr(attention, "_xformers_operator", lambda device: one_dtype_only)
    monkeypatch.setattr(attention, "BMM_LIMIT_BYTES", limit)
    q, k, v = qkv_of((2, 12, 3, 8))
    result = attend(q, k, v.bfloat16(), backend)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.double(), plain_attention(q, k, v), rtol=0, atol=0.02)


def test_a_network_runs_with_an_operator_that_takes_one_dtype(monkeypatch, make_model, make_batch):
    """Layer norms that answer in float32, as under autocast on GPUs."""
    monkeypatch.setattr(attention, "_xformers_operator", lambda device: one_dtype_only)
    model, (x, time) = make_model(attention_backend="xformers"), make_batch()
    full = model(x, time)
    for block in model.blocks:
        for norm in (block.attention.q_norm, block.attention.k_norm):
            norm.register_forward_hook(lambda module, args, output: output.float())
    with torch.autocast("cpu", torch.bfloat16):
        half = model(x, time)
    assert (half - full).square().mean().sqrt() < 0.05 * full.square().mean().sqrt()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_xformers_on_cuda_equals_the_plain_formula(dtype):
    attention._xformers_operator.cache_clear()
    qkv = [x.cuda() for x in qkv_of((2, 70, 2, 64), dtype)]
    assert attention._xformers_operator("cuda") is not None
    for backend in ("xformers", "sdpa"):
        torch.testing.assert_close(attend(*qkv, backend).double(), plain_attention(*qkv), rtol=0, atol=0.02)


def test_rotation_is_a_product_of_complex_numbers():
    centres = 5 * torch.randn(12, 3)
    x, angles = qkv_of((2, 12, 3, 16))[0], axis_angles(centres, 16, base=100.0)
    torch.testing.assert_close(rotate(x, *tables(angles)), rotary(x, angles).float(), rtol=1e-5, atol=1e-5)


def test_gradient_of_the_rotation():
    """It is written by hand: checked against differences, and its own gradient too."""
    x, angles = qkv_of((2, 3, 2, 8))[0].double().requires_grad_(), torch.randn(3, 4).double()
    assert torch.autograd.gradcheck(rotate, (x, *tables(angles)))
    assert torch.autograd.gradgradcheck(rotate, (x, *tables(angles)))


def test_rotated_products_depend_on_the_difference_of_positions_alone():
    """Also between fractional positions, so that modes with other centres see the same distances."""
    q, k = (x.double() for x in qkv_of((1, 1, 1, 24))[:2])

    def product(place, other):
        a, b = (axis_angles(torch.tensor([at]), 24, base=100.0).double() for at in (place, other))
        return (rotate(q, *tables(a)) * rotate(k, *tables(b))).sum().item()

    here = product([0.5, 1.5, 2.5], [3.0, 0.0, 1.5])
    assert product([4.0, 5.0, 6.0], [6.5, 3.5, 5.0]) == pytest.approx(here, abs=1e-5)
    assert product([4.0, 5.0, 6.0], [6.5, 3.5, 6.0]) != pytest.approx(here, abs=1e-2)
