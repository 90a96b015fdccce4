"""The arithmetic that is asked for is the one that is used."""

import pytest
import torch

from flexivid.runtime import device
from flexivid.runtime.device import pick_device
from flexivid.sampling.generate import generate

CPU = torch.device("cpu")


def dtype_in(name):
    weights = torch.ones(4, 4)
    with device.autocast(CPU, name):
        return (weights @ weights).dtype


def test_named_precisions():
    assert dtype_in("fp32") == torch.float32
    assert dtype_in("bf16") == torch.bfloat16
    assert dtype_in("fp16") == torch.float16


@pytest.mark.parametrize(("has", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_follows_the_hardware(monkeypatch, has, dtype):
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: has)
    assert device.fast_dtype(CPU) == dtype
    assert dtype_in("auto") == dtype


def test_unknown_precision():
    with pytest.raises(ValueError, match="got precision 'fp8'; expected one of auto, fp32, bf16, fp16; choose one"):
        device.autocast(CPU, "fp8")


def test_bf16_samples_are_close_to_fp32(model):
    exact, fast = (generate(model, labels=[1], precision=name).videos for name in ("fp32", "bf16"))
    assert fast.dtype == torch.float32
    assert 0 < (fast - exact).abs().max() < 0.1


def test_device_that_is_not_there():
    assert pick_device("cpu") == CPU
    with pytest.raises(ValueError, match=r"got device 'cuda:99', which is not available .*; expected cpu or an acc"):
        pick_device("cuda:99")
