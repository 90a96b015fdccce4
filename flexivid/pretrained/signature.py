"""Calls of transformers by the signatures of their families: random ones, and training calls with noise added.

Random calls prove the native mode untouched and measure memory. Training calls are those of distillation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from flexivid.patching.shapes import Size3
from flexivid.pretrained.families.family import Signature, config_of
from flexivid.pretrained.families.registry import FAMILIES, family_of
from flexivid.pretrained.weak_modes.affine import compute_dtype, device_of

Size = tuple[int, int, int]


def signature_of(model: nn.Module) -> Signature:
    """Return how a model is called; ``ValueError`` if it is of no family."""
    names = [kind.__name__ for kind in type(model).__mro__]  # FSDP puts a class of its own before it
    return family_of(next((name for name in names if name in FAMILIES), names[0])).signature


def usual_size(model: nn.Module) -> Size:
    """Return the latent size (t, h, w) that a model is usually called with."""
    return signature_of(model).usual_size(config_of(model))


def random_call(model: nn.Module, size: Size, *, batch: int = 1, text_tokens: int = 32, seed: int = 0) -> dict:
    """Draw the arguments of a call for a latent size (t, h, w) that the native patch divides, as the model computes.

    ``text_tokens`` is the length of the text, where the class does not fix it.
    """
    signature, config, generator = signature_of(model), config_of(model), torch.Generator().manual_seed(seed)
    latent = torch.randn(batch, config["in_channels"], *size, generator=generator)
    latent = latent.to(device_of(model), compute_dtype(model))
    call: dict[str, Any] = {
        signature.latent: signature.pack(latent),
        signature.time: torch.full((batch,), signature.noise_time / 2, device=latent.device),
    }
    for name, shape in signature.inputs(config, text_tokens).items():
        value = _values(shape, batch, generator).to(latent.device)
        call[name] = value.to(latent.dtype) if value.is_floating_point() else value
    return call | _constants(model, latent)


def first_output(model: nn.Module, call: Mapping[str, Any]) -> Tensor:
    """Call a model and return its output, or the first of several."""
    output = model(**call)
    return output if isinstance(output, Tensor) else output[0]


def noisy_call(model: nn.Module, latent: Tensor, noise: Tensor, time: Tensor, inputs: Mapping[str, Any]) -> dict:
    """Make the arguments of a training call, of a transformer that makes videos of texts or classes.

    ``latent`` (b, c, t, h, w), scaled as the model takes it, gets ``noise`` of its shape for ``time``, (b,) in [0, 1];
    ``inputs`` are the other arguments of ``forward`` by name. ``ValueError`` if noise cannot be added for this class.
    """
    signature, channels = signature_of(model), config_of(model)["in_channels"]
    can_add_noise = signature.is_flow or signature.add_noise is not None
    if not can_add_noise or latent.shape[1] != channels:
        problem = f"latents of {latent.shape[1]} channels" if can_add_noise else type(model).__name__
        raise ValueError(
            f"got {problem}; expected a rectified flow whose {channels} input channels are those of the latent; record"
            " calls of its pipeline instead (record_calls)"
        )
    noise = noise.to(latent)
    if signature.add_noise is not None:
        noisy = signature.add_noise(model, latent, noise, time)
    else:
        noisy = torch.lerp(latent, noise, time.view(-1, 1, 1, 1, 1).to(latent))
    call = {signature.latent: signature.pack(noisy), signature.time: signature.noise_time * time}
    return {**call, **_constants(model, latent), **inputs}


def in_native_precision(model: nn.Module, call: dict[str, Any]) -> dict[str, Any]:
    """Cast latents and texts of a call to the precision that the model computes in; times and tables stay."""
    signature, dtype = signature_of(model), compute_dtype(model)
    batch = len(call[signature.latent])
    floats = {name: value for name, value in call.items() if isinstance(value, Tensor) and value.is_floating_point()}
    names = [name for name, value in floats.items() if len(value) == batch and name != signature.time]
    return {**call, **{name: call[name].to(dtype) for name in {*names, *signature.joined} & floats.keys()}}


def _values(shape: tuple, batch: int, generator: torch.Generator) -> Tensor:
    """Values of an input by its shape in a signature, (b, ...)."""
    match shape:
        case ("ones", *sides):
            return torch.ones(batch, *sides, dtype=torch.long)
        case ("label", count):
            return torch.randint(0, count, (batch,), generator=generator)
        case ("constant", value):
            return torch.full((batch,), value)
    return torch.randn(batch, *shape, generator=generator)


def _constants(model: nn.Module, latent: Tensor) -> dict[str, Any]:
    """Constants of a call for a latent (b, c, t, h, w), on its device."""
    signature = signature_of(model)
    constants = signature.constants(config_of(model), Size3(*latent.shape[2:]))
    moved = send_to_device(constants, latent.device)
    return moved | {name: moved[name].to(latent.dtype) for name in signature.joined}
