"""FlexiDistillation: weak modes of a pre-trained transformer learn to predict what its native mode predicts.

The teacher is the same network in its native mode, without gradient; the student is the mode of the global step. The
loss is the mean squared difference of their outputs. Only adapters and new layers are trained, averaged and kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from flexivid.diffusion.times import draw_times
from flexivid.latents.codec import build_codec
from flexivid.media.pixels import to_unit
from flexivid.model.formats import KEY
from flexivid.patching.shapes import PatchMode
from flexivid.pretrained.adapter import fingerprint, load_adapter
from flexivid.pretrained.families.family import config_of
from flexivid.pretrained.flexify import NATIVE, adapter_parameters, flexi_of, flexify, register, set_mode
from flexivid.pretrained.load import load_transformer
from flexivid.pretrained.model_files import ANY_FILES, ModelFiles
from flexivid.pretrained.signature import first_output, in_native_precision, noisy_call, signature_of
from flexivid.runtime.device import DTYPES
from flexivid.runtime.start import seed_or_global
from flexivid.training.distillation.fsdp import average_gradients, refuse_shards, shard
from flexivid.training.distillation.recorded_data import read_arrays
from flexivid.training.distillation.teacher import Answer, Replay, TeacherWalk
from flexivid.training.guarded import GuardedModule
from flexivid.training.modes import ModeChoice, Phase, generator_of, mode_at
from flexivid.training.objective import DistillationTimes, Walk
from flexivid.training.optimizer import OptimizerSettings, with_rate
from flexivid.training.resume import prepare_weights, require_same_adapter, steps_of

LABEL_DROPOUT = 0.1  # as in training


class FlexiDistillation(GuardedModule):
    """LightningModule that trains the weak modes of a pre-trained transformer.

    A batch with ``hidden_states`` is a recorded call and used as it is; to ``latent`` or ``video`` noise is added; with
    none of them, training points are taken from the teacher's sampling paths. A ``FlexiDiT`` takes videos or latents,
    with the labels of its classes.

    Args:
        transformer: Diffusers folder, of a pipeline or of its transformer, or hub id; or folder of a trained FlexiDiT.
        modes: Weak modes.
        rank: Rank of the LoRA.
        skip: Add a small network around the transformer, for times with little noise.
        detail: Let weak modes pass on the detail that their patches lose, see ``flexify``.
        adapter: Folder of an adapter to start from; its modes, rank, skip and detail replace those above.
        weights: Precision of the native weights: ``bf16``, ``fp32``, or ``fp16`` with ``trainer.precision: 16-mixed``,
            which scales gradients; adapter weights are float32.
        files: Which files of the transformer to read.
        gradient_checkpointing: Keep the input of each block only.
        reuse: Steps that use each output of the teacher, drawn from the latest ones. The teacher's pass is most of a
            step's work: 4 saves half of the MACs of a step of 1x4x4, with each input seen four times.
        phases: Probabilities of weak modes over the run; none = all equal.
        seed: Of modes, times and noise; ``None`` = that of ``--seed_everything``.
        times: Distribution of times for latents and videos.
        walk: Settings for training without data.
        texts: Folder of arrays named as arguments of ``forward``, for videos: one row a class, or one for all.
        codec: Name of the codec that encodes videos as latents.
        optimizer: Optimizer and learning rate; the defaults are the paper's.

    Example:
        >>> from diffusers import WanTransformer3DModel
        >>> wan = WanTransformer3DModel(num_attention_heads=2, attention_head_dim=12, ffn_dim=32, num_layers=1)
        >>> FlexiDistillation.of(flexify(wan, ["1x4x4"], rank=4), reuse=2).modes
        ['1x4x4']
    """

    def __init__(  # noqa: PLR0913
        self,
        transformer: str,
        modes: list[str],
        *,
        rank: int = 16,
        skip: bool = False,
        detail: bool = False,
        adapter: str | None = None,
        weights: Literal["bf16", "fp32", "fp16"] = "bf16",
        files: ModelFiles = ANY_FILES,
        gradient_checkpointing: bool = True,
        reuse: int = 1,
        phases: list[Phase] | None = None,
        seed: int | None = None,
        times: DistillationTimes = DistillationTimes(),
        walk: Walk = Walk(),
        texts: str | None = None,
        codec: str = "pixel",
        optimizer: OptimizerSettings = OptimizerSettings(
            learning_rate=8e-4, weight_decay=1e-2, betas=(0.9, 0.999), warmup_steps=50, final_fraction=1.0
        ),
    ) -> None:
        super().__init__(optimizer)
        self.replay = Replay(reuse)
        self.transformer, self.modes, self.adapter, self.weights = transformer, modes, adapter, weights
        self.files = files
        self.flexify_settings: dict[str, Any] = {"rank": rank, "skip": skip, "detail": detail}
        self.gradient_checkpointing = gradient_checkpointing
        self.weak_modes = tuple(dict.fromkeys(PatchMode(mode) for mode in modes))
        self.seed, choice = seed_or_global(seed), ModeChoice(phases or [], equal_tokens=False, seed=seed)
        self.mode_choice = choice.check(self.weak_modes, groups=False)
        self.times, self.codec = times, build_codec(codec)
        self.texts = read_arrays(texts) if texts else {}
        self.walk = TeacherWalk(walk)
        self.network: Any = None
        self.is_sharded = False
        self._sha256: str | None = None  # of the native weights
        self.total_steps, self.strict_loading = 1, False  # checkpoints hold new weights only

    @classmethod
    def of(cls, network: nn.Module, **settings: Any) -> FlexiDistillation:
        """Make a module for a flexified transformer in memory; ``settings`` as above."""
        module = cls("in memory", list(flexi_of(network).modes), **settings)
        module._adopt(network)
        return module

    def configure_model(self) -> None:
        """Load the transformer and attach the modes, once; with a mesh of devices, shard both (FSDP2)."""
        if self.network is None:
            network = load_transformer(self.transformer, dtype=DTYPES[self.weights], files=self.files)
            if self.adapter:
                load_adapter(network, self.adapter, check=self.files.keep_fingerprint(network))
            else:
                flexify(network, self.modes, **self.flexify_settings)
            self._adopt(network)
        if self.device_mesh is not None and not self.is_sharded:
            shard(self.network, self.device_mesh["data_parallel"], self.trainer.strategy.root_device)
            self.is_sharded = True

    def _adopt(self, network: nn.Module) -> None:
        flexi = flexi_of(network)
        native = flexi.family.patch(config_of(network))
        self.weak_modes = tuple(mode for mode in self.weak_modes if mode != native)
        for mode in self.weak_modes:
            set_mode(network, mode)  # refuses one that it does not have
        set_mode(network, NATIVE)
        if self.gradient_checkpointing:
            network.enable_gradient_checkpointing()  # type: ignore[operator]
        self.network = register(network).eval()  # no dropout, in teacher and student

    def setup(self, stage: str) -> None:
        refuse_shards(self.trainer.strategy)
        if stage == "fit":
            self.total_steps = steps_of(self.trainer)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        new = sum(parameter.numel() for parameter in adapter_parameters(self.network)) / 1e6
        old = sum(parameter.numel() for parameter in self.network.parameters()) / 1e6 - new
        rank_zero_info(f"training {new:.2f} M new parameters, {new / old:.2%} of {old:.1f} M native ones")

    def mode_at(self, global_step: int) -> PatchMode:
        """Return the mode of a step, the same on every rank."""
        return mode_at(global_step, min(1.0, global_step / self.total_steps), self.mode_choice, self.weak_modes)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the squared distance of the step's mode from the native one."""
        mode = self.mode_at(self.global_step)
        stream = (self.seed, self.global_step, self.global_rank, batch_idx)
        draw = partial(generator_of, (*stream, 2))
        call, target = self.replay.answer(partial(self._ask_teacher, batch, stream), draw)
        error, scale = distance(self.network, mode, call, target)
        self.zero_loss, count = scale.detach(), len(target)
        self.log("train/loss", error.detach(), batch_size=count, prog_bar=True)
        self.log(f"train/relative_error/{mode}", error.detach() / scale, batch_size=count)
        return error

    def on_after_backward(self) -> None:
        """Return to the native mode, which sharding, checkpoints and other code expect."""
        set_mode(self.network, NATIVE)
        if self.is_sharded and self.device_mesh is not None:
            average_gradients(self.network, self.device_mesh["data_parallel"])

    def forget_bad_step(self) -> None:
        """Remove answers and restart paths that are not finite, so that later steps do not use them."""
        self.replay.forget_bad()
        self.walk.restart_bad()

    def _ask_teacher(self, batch: dict[str, Any], stream: tuple[int, ...]) -> Answer:
        call, is_walk = self.call_of(batch, stream)
        with torch.no_grad():  # the teacher first: checkpointed blocks run again in the mode of the student
            target = first_output(set_mode(self.network, NATIVE), call)
        if is_walk:
            latent = call[signature_of(self.network).latent]
            self.walk.advance(target, latent, generator_of((*stream, 1), target.device))
        return call, target

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Log the relative error of every mode, on the same noise at every validation."""
        call, is_walk = self.call_of(batch, (-1, self.global_rank, batch_idx))
        if is_walk:
            return
        target = first_output(set_mode(self.network, NATIVE), call)
        for mode in self.weak_modes:
            error, scale = distance(self.network, mode, call, target)
            self.log(f"val/relative_error/{mode}", error / scale, batch_size=len(target), sync_dist=True)
        set_mode(self.network, NATIVE)

    def call_of(self, batch: dict[str, Any], stream: Sequence[int]) -> tuple[dict[str, Any], bool]:
        """Return the arguments of the call for a batch, and whether they are on the teacher's sampling path."""
        batch = {**batch, **batch.get("constants", {})}
        batch.pop("constants", None)
        if signature_of(self.network).latent in batch:
            return in_native_precision(self.network, batch), False
        latent, inputs = self._latent_and_inputs(batch, stream)
        noises = generator_of(tuple(stream), self.device)
        if latent is None:
            return in_native_precision(self.network, self.walk.call(self.network, inputs, noises)), True
        times = draw_times(len(latent), **asdict(self.times), generator=generator_of(tuple(stream)))
        noise = torch.randn(latent.shape, device=latent.device, generator=noises)
        call = noisy_call(self.network, latent.float(), noise, times.to(latent.device), inputs)
        return in_native_precision(self.network, call), False

    def _latent_and_inputs(self, batch: dict[str, Any], stream: Sequence[int]) -> tuple[Tensor | None, dict[str, Any]]:
        label, video, latent = batch.pop("label", None), batch.pop("video", None), batch.pop("latent", None)
        batch.pop("caption", None)  # text; the network takes its embeddings
        if video is not None:
            latent = self.codec.encode(to_unit(video))
        if signature_of(self.network).class_inputs is not None:
            return latent, self._class_inputs(latent, label, stream)
        if label is None:
            return latent, batch
        if not self.texts:
            raise ValueError(
                "got videos or latents without text embeddings; expected model.texts; name a folder of arrays"
            )
        rows = len(next(iter(self.texts.values())))
        chosen = label.cpu().clamp_min(0) if rows > 1 else torch.zeros_like(label, device="cpu")
        return latent, {name: value[chosen].to(label.device) for name, value in self.texts.items()}

    def _class_inputs(self, latent: Tensor | None, label: Tensor | None, stream: Sequence[int]) -> dict[str, Any]:
        """Labels of a network with classes; some are dropped, since guidance calls it without."""
        class_inputs = signature_of(self.network).class_inputs
        if latent is None or class_inputs is None:
            raise ValueError(
                f"got a batch without videos or latents for a {type(self.network).__name__}; expected some, since its"
                " sampling paths are not walked without data; name a data module of videos"
            )
        if label is None:
            label = torch.full((len(latent),), -1, device=latent.device)
        dropped = torch.rand(len(label), generator=generator_of((*stream, 3))) < LABEL_DROPOUT
        return class_inputs(config_of(self.network), torch.where(dropped.to(label.device), -1, label))

    def configure_optimizers(self) -> Any:
        settings, new = self.optimizer_settings, adapter_parameters(self.network)
        # not fused: Lightning clips no gradients of a fused optimizer under mixed precision
        optimizer = torch.optim.AdamW(new, settings.learning_rate, settings.betas, weight_decay=settings.weight_decay)
        return with_rate(optimizer, settings, lambda step: step / self.total_steps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the native weights out of the checkpoint."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[KEY] = self._identity()
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k.startswith("network.flexi.")}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint fits: the same transformer and modes, finite weights."""
        super().on_load_checkpoint(checkpoint)
        require_same_adapter(checkpoint.get(KEY, {}), self._identity())
        prepare_weights(checkpoint, self._trainer)

    def _identity(self) -> dict[str, Any]:
        """What the adapter belongs to. Sharded native weights have no fingerprint: it would take all ranks."""
        if not self.is_sharded and self._sha256 is None:
            self._sha256 = fingerprint(self.network)
        identity = flexi_of(self.network).settings
        return identity if self._sha256 is None else {**identity, "native_sha256": self._sha256}


def distance(network: nn.Module, mode: PatchMode, call: dict[str, Any], target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean squared difference of a mode's prediction from the native one, and the mean square of the latter.

    If a model also predicts a variance (as many channels again), it is left out.
    """
    output = first_output(set_mode(network, mode), call)
    channels = call[signature_of(network).latent].shape[1]
    if target.shape[1] == 2 * channels:
        output, target = output[:, :channels], target[:, :channels]
    error = (output.float() - target.float()).square().mean()
    return error, target.float().square().mean()
