"""What is foretold before a run is what a run needs."""

from dataclasses import replace

import pytest
import torch

from flexivid.model.attention import BMM_LIMIT_BYTES
from flexivid.model.config import FlexiDiTConfig
from flexivid.model.flexidit import FlexiDiT
from flexivid.model.memory import (
    activation_bytes,
    num_parameters,
    sampling_report,
    training_report,
)
from flexivid.patching.shapes import PatchMode

CONFIG = FlexiDiTConfig(width=64, depth=3, num_heads=2, modes=("1x2x2", "2x4x4"), num_classes=3)
NATIVE, WEAK = PatchMode("1x2x2"), PatchMode("2x4x4")


def saved_on_cpu(config, size, mode, batch=1):
    """Bytes of all distinct storages that autograd keeps in a real bf16 pass, weights not counted."""
    model, kept = FlexiDiT(config).bfloat16(), {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()  # alive, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.randn(batch, 3, *size).bfloat16(), torch.rand(batch), mode=mode)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    return sum(storage.nbytes() for address, storage in kept.items() if address not in weights)


@pytest.mark.parametrize("limit", [0, BMM_LIMIT_BYTES])  # with the kernel that keeps no scores, and with the other
@pytest.mark.parametrize("attention", ["joint", "factorised"])
@pytest.mark.parametrize("mode", [NATIVE, WEAK])
def test_activations_are_what_autograd_keeps(monkeypatch, mode, attention, limit):
    monkeypatch.setattr("flexivid.model.attention.BMM_LIMIT_BYTES", limit)
    config = replace(CONFIG, attention=attention)
    real = saved_on_cpu(config, (4, 16, 16), mode, batch=2) / 2
    assert real / 1.5 <= activation_bytes(config, (4, 16, 16), mode) <= real * 1.5


def test_activations_grow_with_the_tokens():
    bytes_at = [activation_bytes(CONFIG, (frames, 16, 16), NATIVE) for frames in (4, 8, 16)]
    assert bytes_at[1] / bytes_at[0] == pytest.approx(2, rel=0.1)
    assert bytes_at[2] / bytes_at[1] == pytest.approx(2, rel=0.1)


def test_activations_grow_with_the_depth():
    at = {depth: activation_bytes(replace(CONFIG, depth=depth), (4, 16, 16), NATIVE) for depth in (2, 4, 6, 10)}
    assert at[6] - at[4] == at[4] - at[2]
    assert at[10] - at[6] == 2 * (at[4] - at[2]) > 0


def test_checkpointing_keeps_less():
    less = activation_bytes(replace(CONFIG, gradient_checkpointing=True), (4, 16, 16), NATIVE)
    assert less < 0.4 * activation_bytes(CONFIG, (4, 16, 16), NATIVE)


@pytest.mark.parametrize("changes", [{}, {"attention": "factorised"}, {"num_classes": 0, "mlp_ratio": 2.0}])
def test_parameters_are_counted_without_making_them(changes):
    config = replace(CONFIG, **changes)
    assert num_parameters(config) == sum(p.numel() for p in FlexiDiT(config).parameters())


def test_training_report_speaks_of_every_mode():
    lines = training_report(CONFIG, (4, 16, 16), {NATIVE: 2, WEAK: 16})
    assert f"{num_parameters(CONFIG) / 1e6:.1f} M parameters, latent 4x16x16, joint attention" == lines[0]
    assert [line.split()[:2] for line in lines[2:4]] == [["1x2x2", "256"], ["2x4x4", "32"]]
    assert [line.split()[5] for line in lines[2:4]] == ["2", "16"]
    needs = [batch * activation_bytes(CONFIG, (4, 16, 16), mode) for mode, batch in ((NATIVE, 2), (WEAK, 16))]
    assert [line.split()[6] for line in lines[2:4]] == [f"{need / 2**30:.2f}" for need in needs]
    assert "training memory about" in lines[4]
    assert "checkpoint" in lines[5]


def test_sampling_report_grows_with_the_batch():
    def memory(batch):
        line = sampling_report(replace(CONFIG, width=512), (16, 64, 64), batch)[-1]
        return float(line.split("about ")[1].split()[0])

    assert memory(32) > 3 * memory(8)
