"""Give a pre-trained transformer weak modes, switch between them, take them away. Knows families by their description.

``model.flexi`` holds all that is new. In the native mode nothing of it takes part: the modules, names and weights of
the model are those it came with, and so is every bit of its output. In a weak mode the latent is folded before the
model's own ``forward``, the output is unfolded after it, and the mode's layers answer in the place of native ones.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from flexivid.patching.shapes import PatchMode, Size3
from flexivid.pretrained.affine import compute_dtype, is_plain
from flexivid.pretrained.family import Family, Fold, argument_names, config_of, named_call
from flexivid.pretrained.layers import Embedding, Unembedding
from flexivid.pretrained.lora import attach_lora, has_peft, rebase
from flexivid.pretrained.registry import family_of, refuse_wrapped
from flexivid.pretrained.shadows import registered, reveal, shadow

Model = TypeVar("Model", bound=nn.Module)
NATIVE = "native"


class WeakMode(nn.Module):
    """What one weak mode adds to a model: patch layers and LoRA (registered), positions (not)."""

    def __init__(self, model: nn.Module, family: Family, mode: PatchMode, *, rank: int, skip: bool) -> None:
        super().__init__()
        native = family.patch(config_of(model))
        self.how = Fold(family.growth(config_of(model), mode), native)
        channels, out_channels = family.channels(config_of(model))
        width = out_channels * mode.volume if skip else 0
        embed, unembed = _patch_layers(model, family)
        dtype = compute_dtype(model)
        self.embed = Embedding.grow(embed, channels, self.how, dtype=dtype, skip_features=width)
        self.unembed = Unembedding.grow(unembed, self.embed, self.how, family.output_order, dtype=dtype)
        self.lora_layers = attach_lora(model, family.lora, rank, dtype) if rank else {}
        self.lora = nn.ModuleDict({path.replace(".", "-"): layer for path, layer in self.lora_layers.items()})
        self.merged = nn.ModuleDict()  # see merged.py; their paths with "-" for "."
        embed_answer, unembed_answer = family.answers(self.embed, self.unembed, self.how)
        self.shadows = {
            family.embed: embed_answer,
            family.unembed: unembed_answer,
            **family.positions(model, self.how),
            **self.lora_layers,
        }


def _patch_layers(model: nn.Module, family: Family) -> tuple[nn.Module, nn.Module]:
    if family.patch_layers is not None:
        return family.patch_layers(model)
    return registered(model, family.embed), registered(model, family.unembed)


class Flexi(nn.Module):
    """All that flexivid adds to a model.

    Attributes:
        family: Description of the model's class.
        modes: The weak modes by their written form.
        mode: The mode in use, ``"native"`` or a written form.
        rank: Rank of the LoRA; 0 = none.
        skip: Whether modes have a skip around the transformer.
        trainable: Names of the native parameters that were trainable before.
    """

    def __init__(self, family: Family, trainable: frozenset[str], *, rank: int, skip: bool) -> None:
        super().__init__()
        self.family = family
        self.modes = nn.ModuleDict()
        self.mode = NATIVE
        self.rank = rank
        self.skip = skip
        self.trainable = trainable
        self.hooks: list[Any] = []

    @property
    def is_merged(self) -> bool:
        """Whether weak modes use copies with LoRA merged (merged.py)."""
        return any(mode.merged for mode in self.modes.values())


class _Call:
    """Folds what goes into a call of the model, unfolds what comes out."""

    def __init__(self, model: nn.Module, family: Family, weak: WeakMode) -> None:
        self.names = argument_names(model)
        self.family = family
        self.how = weak.how
        self.embed = weak.embed
        self.size: Size3 | None = None

    def before(self, model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        call = named_call(self.names, args, kwargs)
        self.size = self.family.fold_call(call, self.how)
        if self.embed.skip is not None:
            self.embed.timestep = self.family.time_of(call)
        return (), call

    def after(self, model: nn.Module, args: tuple, output: Any) -> Any:
        self.embed.timestep = None
        first = output if isinstance(output, Tensor) else output[0]
        sample: Tensor = self.family.unfold_output(first, self.how, self.size)  # type: ignore[arg-type]
        if isinstance(output, Tensor):
            return sample
        if isinstance(output, tuple):
            return (sample, *output[1:])
        output.sample = sample
        return output


def flexify(model: Model, modes: Sequence[str | PatchMode], *, rank: int = 16, skip: bool = False) -> Model:
    """Attach weak modes to a pre-trained transformer. Its weights are frozen and never change.

    Per mode: a new embedding and de-embedding in closed form, and LoRA on self-attention and feed-forward. The model
    stays in its native mode; ``set_mode`` switches.

    Args:
        model: E.g. ``pipe.transformer``, as loaded: before LoRAs of others, compilation or FSDP. Of diffusers, or a
            ``FlexiDiT``, whose own modes stay what they are.
        modes: Weak modes in latent cells, whole multiples of the native patch; the native one may be among them.
        rank: Rank of the LoRA; 0 = none. New over old parameters go with rank / width: three modes add 3.6 % at 16 and
            6.9 % at 32 to Wan's 1.3 billion, 4.3 % at 64 to its 14 billion. The paper has 32 to 64, below 5 %.
        skip: Add a small network around the transformer, from patches and time to the output, zero at first (skip.py).
            For times with little noise, where large patches lose most.

    Returns:
        The same model.

    Raises:
        ValueError: If the family is unknown, a mode does not fit, or the model carries adapters already, is compiled,
            wrapped or offloaded.

    Example:
        >>> from diffusers import WanTransformer3DModel
        >>> wan = WanTransformer3DModel(num_attention_heads=2, attention_head_dim=12, ffn_dim=32, num_layers=1)
        >>> wan = flexify(wan, ["1x4x4", "2x4x4"], rank=4)
        >>> mode_of(wan), sum(p.numel() for p in adapter_parameters(wan))
        ('native', 40112)
    """
    refuse_wrapped(model)
    family = family_of(type(model).__name__)
    if hasattr(model, "flexi") or has_peft(model):
        kind = "weak modes" if hasattr(model, "flexi") else "peft adapters"
        raise ValueError(f"got a model with {kind}; expected one without; call unflexify or unload_lora_weights first")
    native = family.patch(config_of(model))
    wanted = [mode for mode in dict.fromkeys(PatchMode(mode) for mode in modes) if mode != native]
    if not wanted or rank < 0:
        raise ValueError(f"got modes {list(modes)}, rank {rank}; expected one weak mode at least and a rank >= 0")
    for mode in wanted:
        family.growth(config_of(model), mode)
    trainable = frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    flexi = Flexi(family, trainable, rank=rank, skip=skip)
    model.requires_grad_(False)
    for mode in wanted:
        flexi.modes[str(mode)] = WeakMode(model, family, mode, rank=rank, skip=skip)
    model.flexi = flexi.train(model.training)
    return model


def unflexify(model: Model) -> Model:
    """Take all that ``flexify`` added away: modules, names and trainable parameters are those from before."""
    set_mode(model, NATIVE)
    trainable = flexi_of(model).trainable
    del model.flexi
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trainable)
    return model


def flexi_of(model: nn.Module) -> Flexi:
    """What ``flexify`` added to a model.

    Raises:
        ValueError: If it added nothing.
    """
    if not isinstance(getattr(model, "flexi", None), Flexi):
        raise ValueError(f"got a {type(model).__name__} without weak modes; expected some; call flexify first")
    return model.flexi  # type: ignore[return-value]


def mode_of(model: nn.Module) -> str:
    """The mode in use: ``"native"`` or a written form like ``"1x4x4"``."""
    return flexi_of(model).mode


def adapter_parameters(model: nn.Module) -> list[nn.Parameter]:
    """All new parameters, those to train: patch layers, skips and LoRA of every mode. Merged copies are none."""
    return [parameter for name, parameter in flexi_of(model).named_parameters() if ".merged." not in name]


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The repeated parts of a transformer: where its LoRA is, up to the first number of the path.

    Example:
        >>> from diffusers import WanTransformer3DModel
        >>> wan = WanTransformer3DModel(num_attention_heads=2, attention_head_dim=12, ffn_dim=32, num_layers=3)
        >>> [type(block).__name__ for block in blocks_of(flexify(wan, ["1x4x4"], rank=1))]
        ['WanTransformerBlock', 'WanTransformerBlock', 'WanTransformerBlock']
    """
    pattern = flexi_of(network).family.lora
    paths = [path for path, _ in network.named_modules() if re.fullmatch(pattern, path)]
    names = dict.fromkeys(re.split(r"(?<=\d)\.", path)[0] for path in paths)
    return [network.get_submodule(name) for name in names]


def set_mode(model: Model, mode: str | PatchMode) -> Model:
    """Use a mode from the next call on. Caches of diffusers (first block cache and others) start anew.

    Call it outside of ``cache_context``. Finish a backward pass before switching: gradient checkpointing runs blocks
    again, in the mode that is set then. For distillation, run the teacher first.

    Args:
        model: Transformer that went through ``flexify``.
        mode: ``"native"``, or a mode it has.

    Returns:
        The same model.

    Raises:
        ValueError: If the model has no such mode, or something is active that weak modes cannot work with.
    """
    flexi = flexi_of(model)
    name = _known(flexi, model, mode)
    if name == flexi.mode:
        return model
    if name != NATIVE:
        _refuse(model)
    if flexi.mode != NATIVE:
        _leave(model, flexi)
    if name != NATIVE:
        _enter(model, flexi, name)
    if getattr(model, "is_cache_enabled", False):
        model._reset_stateful_cache()  # type: ignore[operator]
    return model


def _known(flexi: Flexi, model: nn.Module, mode: str | PatchMode) -> str:
    if str(mode) == NATIVE or PatchMode(mode) == flexi.family.patch(config_of(model)):
        return NATIVE
    name = str(PatchMode(mode))
    if name not in flexi.modes:
        known = ", ".join([NATIVE, *flexi.modes])
        raise ValueError(f"got mode {name}; expected one of {known}; name it when you call flexify")
    return name


def _refuse(model: nn.Module) -> None:
    if getattr(model, "_parallel_config", None) is not None:
        raise ValueError("got context or tensor parallelism of diffusers; expected none in weak modes; stay in native")
    if any(getattr(module, "fused_projections", False) for module in model.modules()):
        raise ValueError("got fused projections; expected q, k, v apart in weak modes; call unfuse_qkv_projections")


def _enter(model: nn.Module, flexi: Flexi, name: str) -> None:
    weak: WeakMode = flexi.modes[name]  # type: ignore[assignment]
    for path, layer in weak.lora_layers.items():
        base = rebase(model, path, layer).base_layer
        if weak.merged and not is_plain(base):
            raise ValueError(
                f"got a {type(base).__name__} at {path} after merge_lora; expected the linear that was merged; call"
                " unmerge_lora first"
            )
    merged = {path: weak.merged[path.replace(".", "-")] for path in weak.lora_layers if weak.merged}
    for path, module in (weak.shadows | merged).items():
        shadow(model, path, module)
    call = _Call(model, flexi.family, weak)
    flexi.hooks = [
        model.register_forward_pre_hook(call.before, with_kwargs=True),
        model.register_forward_hook(call.after),
    ]
    flexi.mode = name


def _leave(model: nn.Module, flexi: Flexi) -> None:
    for hook in flexi.hooks:
        hook.remove()
    for path in flexi.modes[flexi.mode].shadows:  # type: ignore[union-attr]
        reveal(model, path)
    flexi.hooks, flexi.mode = [], NATIVE
