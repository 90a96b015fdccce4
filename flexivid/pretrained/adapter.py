"""Save and load what ``flexify`` added: one safetensors file a mode, LoRA named as diffusers and peft name it.

flexivid.json        family, modes, rank, skip, detail, fingerprint of the native weights
1x4x4.safetensors    transformer.blocks.0.attn1.to_q.lora_A.weight, ..., patches.embed.layer.weight, ...
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from flexivid.patching.shapes import PatchMode
from flexivid.pretrained.families.registry import refuse_wrapped
from flexivid.pretrained.flexify import Model, WeakMode, flexi_of
from flexivid.pretrained.flexify import flexify as attach
from flexivid.pretrained.merged import unmerge_lora
from flexivid.pretrained.weak_modes.affine import LEAST_BYTES, stored_values
from flexivid.pretrained.weak_modes.lora import native_names
from flexivid.runtime.files import save_json
from flexivid.runtime.paths import resolve_path
from flexivid.runtime.weights import read_data, save_weights

SETTINGS = "flexivid.json"
SAMPLES = 4096  # values of each weight that the fingerprint reads


def fingerprint(model: nn.Module) -> str:
    """Return the sha256 of the native weights: names, shapes and 4096 evenly spread values of each, in bfloat16.

    float32 and bfloat16 copies of the same weights agree, with and without other adapters. 4096 values of each weight
    take less than seconds at any size. Weights on the meta device (offloaded, or never loaded) and fused adapters are
    refused.
    """
    digest = hashlib.sha256()
    state, names = model.state_dict(), native_names(model)
    for present_name, name in sorted(names.items(), key=lambda pair: pair[1]):
        weight = stored_values(state[present_name])
        if weight is None:
            continue
        if weight.is_meta:
            raise ValueError(f"got weight {name} on the meta device; expected loaded ones; do this before offloading")
        flat = unsharded(weight.detach()).reshape(-1)
        values = flat[:: max(1, flat.numel() // SAMPLES)].to(torch.bfloat16).cpu().contiguous()
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def flexify(
    model: Model,
    modes: Sequence[str | PatchMode] | str | Path,
    *,
    rank: int = 16,
    skip: bool = False,
    detail: bool = False,
) -> Model:
    """Give a pre-trained transformer weak modes: new ones, or those of an adapter folder.

    Per mode: a new embedding and de-embedding in closed form, and LoRA on self-attention and feed-forward. Native
    weights are frozen and never change. The model stays in its native mode; ``set_mode`` switches.

    Args:
        model: E.g. ``pipe.transformer``, as loaded: before LoRAs of others, compilation or FSDP. Of diffusers, or a
            ``FlexiDiT``, whose own modes stay what they are.
        modes: Weak modes in latent cells, whole multiples of the native patch; the native one may be among them. Or a
            folder that ``save_adapter`` or a distillation wrote, with its modes, rank and weights.
        rank: Rank of the LoRA; 0 = none. New over old parameters go with rank / width: three modes add 3.6 % at 16 and
            6.9 % at 32 to Wan's 1.3 billion, 4.3 % at 64 to its 14 billion. The paper has 32 to 64, below 5 %.
        skip: Add a small network around the transformer, from patches and time to the output, zero at first. For times
            with little noise, where large patches lose most.
        detail: Add to outputs in weak modes the detail of the noisy latent that large patches lose, times what the
            process says of it, in closed form: most of it is noise, which the tokens need not carry then. For
            rectified flows, DiT, Latte and ``FlexiDiT``.

    Returns:
        The same model.

    Raises:
        ValueError: If the family is unknown, a mode does not fit, or the model carries adapters already, is compiled,
            wrapped or offloaded; or as in ``load_adapter``.

    Example:
        >>> from diffusers import WanTransformer3DModel
        >>> wan = WanTransformer3DModel(num_attention_heads=2, attention_head_dim=12, ffn_dim=32, num_layers=1)
        >>> from flexivid.pretrained.flexify import adapter_parameters, current_mode
        >>> wan = flexify(wan, ["1x4x4"], rank=4)
        >>> current_mode(wan), sum(p.numel() for p in adapter_parameters(wan))
        ('native', 13784)
    """
    if isinstance(modes, (str, Path)):
        return load_adapter(model, modes)
    return attach(model, modes, rank=rank, skip=skip, detail=detail)


def unsharded(tensor: Tensor) -> Tensor:
    """Gather a tensor that is sharded over devices, which all of them have to call; return others as they are."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def save_adapter(model: nn.Module, folder: str | Path, *, write: bool = True) -> Path:
    """Write the weak modes of a model to a folder.

    Args:
        model: Flexified.
        folder: Made if missing.
        write: Where a model is sharded, all ranks call this together, and one of them writes.

    Returns:
        The folder.

    Example:
        >>> import tempfile
        >>> from diffusers import WanTransformer3DModel
        >>> wan = WanTransformer3DModel(num_attention_heads=2, attention_head_dim=12, ffn_dim=32, num_layers=1)
        >>> folder = save_adapter(flexify(wan, ["1x4x4"], rank=4), tempfile.mkdtemp())
        >>> sorted(file.name for file in folder.iterdir())
        ['1x4x4.safetensors', 'flexivid.json']
    """
    flexi, folder = flexi_of(model), resolve_path(folder)
    if write:
        folder.mkdir(parents=True, exist_ok=True)
    for name, mode in flexi.modes.items():
        named = _named(mode)  # type: ignore[arg-type]
        if write:
            save_weights(folder / f"{name}.safetensors", named)
    digest = flexi.native_sha256 or fingerprint(model)
    if write:
        settings = {"family": flexi.family.class_name, **flexi.settings, "native_sha256": digest}
        save_json(folder / SETTINGS, settings)
    return folder


def load_adapter(model: Model, folder: str | Path, *, check: bool = True) -> Model:
    """Give a model the weak modes of a folder, or load their values into those that it has.

    Args:
        model: The transformer that the adapter was made for, with or without weak modes.
        folder: What ``save_adapter`` wrote.
        check: Refuse other native weights than those it was made for. Turn off for float16, float8 or quantised copies.

    Returns:
        The same model.

    Raises:
        ValueError: If the folder holds no adapter, or one of another model or with other modes.

    Example:
        >>> import tempfile
        >>> from diffusers import WanTransformer3DModel
        >>> wan = WanTransformer3DModel(num_attention_heads=2, attention_head_dim=12, ffn_dim=32, num_layers=1)
        >>> from flexivid.pretrained.flexify import unflexify
        >>> folder = save_adapter(flexify(wan, ["1x4x4"], rank=4), tempfile.mkdtemp())
        >>> flexi_of(load_adapter(unflexify(wan), folder)).rank
        4
    """
    settings, folder = read_settings(folder), resolve_path(folder)
    refuse_wrapped(model)
    if settings["family"] != type(model).__name__:
        raise ValueError(
            f"got an adapter for {settings['family']}; expected one for {type(model).__name__}; see {folder / SETTINGS}"
        )
    if check and settings["native_sha256"] != fingerprint(model):
        raise ValueError(
            f"got the adapter {folder} of other native weights; expected sha256 {settings['native_sha256'][:12]}...;"
            " load the model that it was made for, or pass check=False for a float16, float8 or quantised copy of it"
        )
    if not hasattr(model, "flexi"):
        attach(model, settings["modes"], **{name: settings[name] for name in ("rank", "skip", "detail")})
    flexi = flexi_of(unmerge_lora(model))
    stored = {name: settings[name] for name in flexi.settings}
    if flexi.settings != stored:
        raise ValueError(f"got a model with {flexi.settings}; expected {stored} as in {folder}; call unflexify first")
    flexi.native_sha256 = settings["native_sha256"]
    for name, mode in flexi.modes.items():
        file = folder / f"{name}.safetensors"
        _fill(mode, read_data(file, expected="what save_adapter wrote"))  # type: ignore[arg-type]
    return model


def read_settings(folder: str | Path) -> dict[str, Any]:
    """Read what an adapter belongs to: ``family``, ``modes``, ``rank``, ``skip``, ``detail`` and ``native_sha256``.

    ``ValueError`` if the folder holds no adapter, or its settings cannot be read.
    """
    folder = resolve_path(folder)
    path = folder / SETTINGS
    if not path.is_file():
        raise ValueError(f"got {folder}; expected an adapter folder with {SETTINGS}; pass what save_adapter wrote")
    try:
        settings = json.loads(path.read_text())
        missing = [key for key in ("family", "modes", "rank", "skip", "native_sha256") if key not in settings]
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"got {path}, which cannot be read ({error}); expected what save_adapter wrote") from error
    if missing:
        raise ValueError(f"got {path} without {missing[0]}; expected what save_adapter wrote; save the adapter again")
    return {"detail": False, **settings}  # folders written before there was such a thing


def _tensors(mode: WeakMode) -> dict[str, Tensor]:
    """The tensors of a mode, not copied, by the names that they have in the file."""
    named: dict[str, Tensor] = {}
    for path, layer in zip(mode.lora_layers, mode.lora.values(), strict=True):
        named |= {f"transformer.{path}.{key}": value for key, value in layer.state_dict().items()}
    for part in ("embed", "unembed"):
        named |= {f"patches.{part}.{key}": value for key, value in getattr(mode, part).state_dict().items()}
    return named


def _named(mode: WeakMode) -> dict[str, Tensor]:
    tensors = _tensors(mode)
    for name, value in tensors.items():
        if value.dtype.itemsize < LEAST_BYTES:
            raise ValueError(
                f"got {name} stored in {value.dtype}, its precision lost; expected 16 bits or more; save an adapter"
                " before the whole model is cast, or cast layer by layer (enable_layerwise_casting)"
            )
    return {name: unsharded(value.detach()) for name, value in tensors.items()}


def _fill(mode: WeakMode, values: dict[str, Tensor]) -> None:
    tensors = _tensors(mode)
    if tensors.keys() != values.keys():
        name = min(tensors.keys() ^ values.keys())
        raise ValueError(
            f"got an adapter file that differs by {name}; expected the names of save_adapter; save it again"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(values[name])
