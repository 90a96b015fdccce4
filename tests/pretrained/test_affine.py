"""Values of layers however they are stored, and the dtype to compute in."""

import pytest
import torch
from torch import nn

from flexivid.pretrained.weak_modes.affine import Affine, compute_dtype, stored_values, values_of
from tests.pretrained.families import CASES, build
from tests.pretrained.quantised import Int8Linear, ScaledLinear

WAN = CASES[0]


class Halved3d(nn.Conv3d):
    """A convolution that does not compute with its weights as they are."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
def test_plain_layers_are_read_and_not_shared(dtype, bias) -> None:
    for layer in (nn.Linear(6, 4, bias, dtype=dtype), nn.Conv3d(2, 4, (1, 2, 2), (1, 2, 2), bias=bias, dtype=dtype)):
        weight, own_bias = values_of(layer, dtype)
        assert weight.dtype == own_bias.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert torch.equal(weight, layer.weight.to(weight))
        assert torch.equal(own_bias, layer.bias.to(weight) if bias else torch.zeros(4).to(weight))
        assert weight.data_ptr() != layer.weight.data_ptr()


@pytest.mark.parametrize("kind", [Int8Linear, ScaledLinear])
def test_quantised_linears_are_asked_for_what_they_compute_with(kind) -> None:
    layer = kind(nn.Linear(6, 4))
    weight, bias = values_of(layer, torch.float32)
    torch.testing.assert_close(weight, layer.weight.float() * layer.scale)
    assert torch.equal(bias, layer.bias)


def test_a_large_bias_does_not_hide_small_weights_in_half_precision() -> None:
    linear = nn.Linear(6, 4, dtype=torch.bfloat16)
    nn.init.constant_(linear.bias, 4.0)
    layer = Int8Linear(linear)
    weight, bias = values_of(layer, torch.bfloat16)
    torch.testing.assert_close(weight, layer.weight * layer.scale, rtol=1e-2, atol=1e-3)
    assert bias.tolist() == [4.0] * 4


def test_convolutions_of_another_class_are_asked_too() -> None:
    layer = Halved3d(2, 4, (1, 2, 2), (1, 2, 2))
    weight, bias = values_of(layer, torch.float32)
    torch.testing.assert_close(weight, layer.weight / 2)
    torch.testing.assert_close(bias, layer.bias / 2)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (nn.LayerNorm(4), "got a patch layer LayerNorm; expected a linear or a convolution whose stride is its kernel"),
        (nn.Conv2d(2, 4, 3), "got a patch layer Conv2d; expected a linear or a convolution whose stride is its kernel"),
        (Int8Linear(nn.Linear(2, 2)).to("meta"), "does not answer in torch.float16 .*; load the model with its patch"),
    ],
)
def test_what_cannot_be_asked_is_refused(layer, says) -> None:
    if layer.__class__ is Int8Linear:
        layer.forward = nn.Linear(2, 2).forward  # of another dtype and device
    with pytest.raises(ValueError, match=says):
        values_of(layer, torch.float16)


def test_a_model_computes_in_what_it_says_not_in_what_it_stores() -> None:
    model = build(WAN, torch.bfloat16)
    model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float16)
    assert compute_dtype(model) == torch.float16
    mixed = nn.Sequential(Int8Linear(nn.Linear(2, 2, bias=False)), nn.Linear(2, 2, dtype=torch.float16))
    assert compute_dtype(mixed) == torch.float16
    assert compute_dtype(nn.Sequential()) == torch.float32


def test_float8_weights_do_not_compute() -> None:
    layer = Affine(torch.ones(2, 2)).to(torch.float8_e4m3fn)
    with pytest.raises(
        ValueError, match=r"got weights of a weak mode in torch.float8_e4m3fn; expected 16 bits or more"
    ):
        layer(torch.ones(1, 2))


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_entries_of_a_state_dict() -> None:
    packed = torch.quantize_per_tensor(torch.tensor([1.0, -2.0]), 0.5, 0, torch.qint8)
    assert stored_values(packed).tolist() == [1.0, -2.0]
    assert stored_values("nf4") is None
    assert torch.equal(stored_values(torch.ones(2, dtype=torch.int8)), torch.ones(2, dtype=torch.int8))
