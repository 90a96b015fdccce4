"""Every family can be called with what the table says; a training call lies on the line from latent to noise."""

import pytest
import torch
from torch import nn

from flexivid.pretrained.signature import noisy_call, random_call, signature_of
from tests.pretrained.families import CASES, build, by_family, output

by_name = {case.name: case for case in CASES}


@by_family
def test_a_random_call_works_and_is_the_same_each_time(case) -> None:
    model = build(case)
    call, again = (random_call(model, case.even, batch=2, text_tokens=6) for _ in range(2))
    latent = signature_of(model).latent
    assert torch.equal(call[latent], again[latent])
    assert len(output(model, call)) == 2


@pytest.mark.parametrize("name", ["wan2.1", "ltx", "hunyuan"])
def test_a_training_call_is_a_mixture_in_the_layout_of_the_model(name) -> None:
    model = build(by_name[name])
    arguments = random_call(model, (2, 4, 6), text_tokens=6)
    channels = model.config.in_channels
    latent, noise = torch.randn(2, 1, channels, 2, 4, 6)
    fixed = ("num_frames", "height", "width", "rope_interpolation_scale")
    inputs = {key: value for key, value in arguments.items() if key not in ("hidden_states", "timestep", *fixed)}
    calls = [noisy_call(model, latent, noise, torch.tensor([time]), inputs) for time in (0.0, 0.3, 1.0)]
    clean, mixed, pure = (call["hidden_states"] for call in calls)
    assert sorted(clean.flatten().tolist()) == sorted(latent.flatten().tolist())
    assert sorted(pure.flatten().tolist()) == sorted(noise.flatten().tolist())
    torch.testing.assert_close(mixed, 0.7 * clean + 0.3 * pure)
    assert calls[1]["timestep"].tolist() == pytest.approx([300])
    assert output(model, calls[1]).shape == mixed.shape


def test_what_cannot_be_called_is_refused() -> None:
    latent = torch.zeros(1, 3, 2, 4, 4)
    with pytest.raises(ValueError, match="got latents of 3 channels"):
        noisy_call(build(by_name["wan2.1"]), latent, latent, torch.zeros(1), {})
    with pytest.raises(ValueError, match="got CogVideoXTransformer3DModel; expected a rectified flow"):
        noisy_call(build(by_name["cogvideox-2b"]), latent, latent, torch.zeros(1), {})
    with pytest.raises(ValueError, match="got a model of class Linear"):
        random_call(nn.Linear(2, 2), (1, 2, 2))


@by_family
def test_what_is_packed_is_unpacked(case) -> None:
    model = build(case)
    signature, latent = signature_of(model), torch.randn(2, model.config.in_channels, *case.even)
    arguments = random_call(model, case.even, batch=2, text_tokens=6)
    assert torch.equal(signature.unpack(signature.pack(latent), arguments), latent)
