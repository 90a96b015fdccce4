"""Muon is torch's, in the arithmetic of the device, and its steps are nearly orthogonal."""

from __future__ import annotations

import pytest
import torch

from flexivid.training import optimizer as muon
from flexivid.training.optimizer import Muon, orthogonalised

SHAPES = [(8, 24), (24, 8), (8, 24), (16, 16)]


def weights():
    source = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=source)) for shape in SHAPES]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_equals_torchs(decay, monkeypatch):
    monkeypatch.setattr(muon, "fast_dtype", lambda device: torch.bfloat16)
    ours, theirs = weights(), weights()
    first = Muon(ours, 0.02, decay)
    second = torch.optim.Muon(theirs, lr=0.02, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    source = torch.Generator().manual_seed(1)
    for step in range(4):
        for number, (own, other) in enumerate(zip(ours, theirs, strict=True)):
            grad = torch.randn(own.shape, generator=source)
            own.grad, other.grad = (None, None) if step == 2 and number == 1 else (grad, grad.clone())
        first.step()
        second.step()
    for own, other, start in zip(ours, theirs, weights(), strict=True):
        assert (own - other).norm() < 0.02 * (other - start).norm()  # bfloat16: batches round differently
        assert (other - start).norm() > 0
    for own, other in zip(ours, theirs, strict=True):
        assert torch.equal(first.state[own]["momentum_buffer"], second.state[other]["momentum_buffer"])
    first.load_state_dict(second.state_dict())  # a run of an older version goes on


@pytest.mark.parametrize("shape", [(3, 16, 48), (2, 48, 16), (1, 32, 32)])
def test_singular_values_come_near_one_and_vectors_stay(shape):
    source = torch.Generator().manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(*shape[:2], min(shape[1:]), generator=source))
    right, _ = torch.linalg.qr(torch.randn(shape[0], shape[2], min(shape[1:]), generator=source))
    values = torch.logspace(-1, 1, min(shape[1:]))
    found = orthogonalised(left * values @ right.mT, torch.float32)
    core = left.mT @ found @ right  # diagonal if the singular vectors are the same
    diagonal = core.diagonal(dim1=1, dim2=2)
    assert ((diagonal > 0.6) & (diagonal < 1.3)).all()
    assert (core - torch.diag_embed(diagonal)).abs().max() < 1e-4


def test_float32_where_bfloat16_is_slow(monkeypatch):
    seen = []
    monkeypatch.setattr(muon, "fast_dtype", lambda device: seen.append(device.type) or torch.float32)
    matrices = torch.randn(2, 8, 16)
    assert torch.equal(orthogonalised(matrices), orthogonalised(matrices, torch.float32))
    assert seen == ["cpu"]


def test_refuses_vectors():
    with pytest.raises(ValueError, match=r"got a parameter of shape \(3,\); expected matrices; use AdamW"):
        Muon([torch.nn.Parameter(torch.zeros(3))], 0.1)
