"""FlexiDiffusion: trains one FlexiDiT in all its patch modes, one mode per global step.

Everything random in a step is a function of (seed, global step, rank, batch), so a resumed run equals an unbroken one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from flexivid.budget.cost import human
from flexivid.data.clips.sampler import PictureSteps
from flexivid.diffusion.loss import denoising_loss
from flexivid.diffusion.process import Process
from flexivid.diffusion.solver import call_times, solvers_of
from flexivid.diffusion.times import draw_times
from flexivid.latents.settings import CodecSettings, TextSettings
from flexivid.latents.spectrum import SpectrumMeter
from flexivid.model.conditioning import Condition
from flexivid.model.config import FlexiDiTConfig
from flexivid.model.flexidit import FlexiDiT
from flexivid.model.formats import KEY
from flexivid.model.recipe import Recipe, SamplingDefaults
from flexivid.patching.shapes import PatchMode, Size3
from flexivid.pretrained.shared.start import network_from
from flexivid.runtime.start import seed_or_global
from flexivid.training import resume
from flexivid.training.conditions import Clips as Clips
from flexivid.training.conditions import Encoders, dropped, frames_of, given_mask, step_macs
from flexivid.training.distribution_matching import discrepancy
from flexivid.training.guarded import GuardedModule
from flexivid.training.modes import ModeChoice, generator_of, mode_at
from flexivid.training.objective import GivenFrames, Objective
from flexivid.training.optimizer import OptimizerSettings, build_optimizer, with_rate

SPECTRUM_CLIPS = 256  # first clips of a run, whose spectrum is measured: half a second of one core, powers to 10 %


class FlexiDiffusion(GuardedModule):
    """LightningModule that trains a FlexiDiT in all its modes.

    Args:
        network: Shape of the network; channels and classes are taken from the data and the encoders.
        clips: Shape of the data; ``flexivid.train`` fills it in.
        objective: Process, loss and times.
        mode_choice: How steps are shared among the patch modes.
        optimizer: Optimizer and learning rate.
        sampling: Defaults for sampling, stored in the recipe.
        codec: Codec that turns videos into latents, by its source (see docs/latents.md) or settings. ``None`` = the one
            that made the latents of the data, ``pixel`` without latents. Data that are latents load no autoencoder.
        text_encoder: Encoder of the captions, likewise; ``None`` = that of the encoded captions of the data, if any.
        given_frames: How often samples are shown some of their frames.
        init_from: Weights to start from, see ``load_shared``; of the shape, ``network`` then says the modes alone.

    Example:
        >>> shape = FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("2x4x4", "4x8x8"))
        >>> FlexiDiffusion(shape, Clips(size=(8, 32, 32), num_classes=10)).latent_size
        (8, 32, 32)
    """

    def __init__(  # noqa: PLR0913
        self,
        network: FlexiDiTConfig,
        clips: Clips | None = None,
        *,
        objective: Objective = Objective(),
        mode_choice: ModeChoice = ModeChoice(),
        optimizer: OptimizerSettings = OptimizerSettings(),
        sampling: SamplingDefaults = SamplingDefaults(),
        codec: str | Mapping[str, Any] | CodecSettings | None = None,
        text_encoder: str | Mapping[str, Any] | TextSettings | None = None,
        given_frames: GivenFrames = GivenFrames(),
        init_from: str | None = None,
    ) -> None:
        super().__init__(optimizer)
        self.clips = clips or Clips()
        self.encoders = Encoders(self.clips, codec, text_encoder)
        self.objective, self.sampling = objective, sampling
        self.process = Process(objective.path, objective.target).check()
        shape = self.encoders.shape_of(network, given_frames)
        if init_from:
            resume.require_weights_alone(init_from)
        self.network = network_from(init_from, shape, self.process) if init_from else FlexiDiT(shape)
        self.modes: tuple[PatchMode, ...] = self.network.config.modes  # type: ignore[assignment]
        self.mode_choice = mode_choice.check(self.modes)
        self.seed = seed_or_global(self.mode_choice.seed)  # of all that a step draws
        self.matching = objective.matching.check(self.modes, sampling.num_inference_steps)
        self.latent_size = self.encoders.latent_shape[1:]
        self.given_frames = given_frames.check(self.latent_size[0])
        self.spectrum_meter = SpectrumMeter(SPECTRUM_CLIPS)  # each rank measures its own clips
        self.picture_steps = PictureSteps()  # those of the data
        self.log_every = 20
        self.horizons = [(0, 1)]  # (from step, total steps): changing the length of a run must not change past steps
        self.asked_steps = 0  # total steps by the trainer's settings, before any change
        self.step_floor: int | None = None  # see Recipe; measured when training ends
        self.loaded_step = 0  # of the checkpoint that was loaded

    @property
    def total_steps(self) -> int:
        return self.horizons[-1][1]

    @property
    def step_of_weights(self) -> int:
        """Optimizer steps behind the weights; where they are only validated, the trainer's own step stays 0."""
        return max(self.global_step, self.loaded_step) if self._trainer else 0

    @cached_property
    def times(self) -> list[float]:
        """Times of a sample's solver steps, and 0, where the last one ends."""
        steps = self.sampling.num_inference_steps
        return [*call_times(self.process, solvers_of(self.process)[0], steps, shift=self.sampling.shift), 0.0]

    def replan(self, total_steps: int, *, from_step: int) -> None:
        """Change the total number of steps, from a future step on."""
        self.horizons.append((from_step, total_steps))

    def progress_at(self, global_step: int) -> float:
        """Return the fraction of the run before a step, in [0, 1]."""
        return min(1.0, global_step / max(1, next(n for first, n in reversed(self.horizons) if first <= global_step)))

    def mode_at(self, global_step: int) -> PatchMode:
        """Return the mode of a step, the same on every rank."""
        return mode_at(global_step, self.progress_at(global_step), self.mode_choice, self.modes)

    def batch_size_at(self, global_step: int) -> int:
        """Return the number of clips of a step on each rank."""
        mode, size = self.mode_at(global_step), self.picture_steps.size_at(global_step, self.latent_size)
        base, native_size = self.clips.batch_size, self.latent_size
        return self.mode_choice.batch_size(mode, size, self.modes[0], base, native_size=native_size)

    def setup(self, stage: str) -> None:
        """Load the encoders that the data need, and give the data module the batch size of each step."""
        data: Any = getattr(self.trainer, "datamodule", None)
        self.encoders.prepare(data, self.trainer.strategy.root_device, self.network.recipe)
        self.picture_steps = getattr(data, "picture_steps", self.picture_steps)
        if stage == "fit":
            self.asked_steps = resume.steps_of(self.trainer)
            self.horizons = [(0, self.asked_steps)] if self.horizons == [(0, 1)] else self.horizons
            if hasattr(data, "set_batch_sizes"):
                data.set_batch_sizes(self.batch_size_at)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        count, cost = self.network.num_parameters / 1e6, self._macs([(self.modes[0], 1)], self.latent_size)
        rank_zero_info(f"training {count:.1f} M parameters, {human(cost)} a clip in {self.modes[0]}")

    def on_train_start(self) -> None:
        """Restore the full number of steps if ``FitMinutes`` had shortened an earlier part of the run."""
        end = limit if (limit := self.trainer.fit_loop.epoch_loop.max_steps) >= 0 else self.asked_steps
        if end > self.total_steps:
            self.replan(end, from_step=self.global_step)
        super().on_train_start()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of the step's mode, the mean over the batch."""
        mode = self.mode_at(self.global_step)
        stream = (self.seed, self.global_step, self.global_rank, batch_idx)
        (x0, condition), count = self._inputs(batch, stream), len(batch["label"])
        if not self.spectrum_meter.is_full and tuple(x0.shape[2:]) == tuple(self.latent_size):  # not of a bucket
            self.spectrum_meter.add(x0[x0.isfinite().flatten(1).all(1)])
        loss = self._losses(x0, condition, mode, stream, drop=True).mean()
        self.log("train/loss", loss.detach(), batch_size=count, prog_bar=True)
        self.log(f"train/loss_mode/{mode}", loss.detach(), batch_size=count)
        if (start := self._matched_at(self.global_step)) is None or count < 2:
            return loss
        gap = self._discrepancy(x0, condition, start, (*stream, 1))
        self.log("train/discrepancy", gap.detach(), batch_size=count)
        return loss + self.matching.weight * gap

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log the loss of every mode, on the same clips, times and noises; pictures are the second loader."""
        x0, condition = self._inputs(batch, stream := (-1, self.global_rank, batch_idx))
        for mode in self.modes:
            losses = self._losses(x0, condition, mode, stream, drop=False)
            name, log = f"val/{('', 'picture_')[dataloader_idx]}loss_mode/{mode}", partial(self.log, sync_dist=True)
            log(name, losses.mean(), mode == self.modes[0], batch_size=len(losses), add_dataloader_idx=False)

    def _inputs(self, batch: dict[str, Tensor], stream: tuple[int, ...]) -> tuple[Tensor, Condition]:
        """Latents of a batch, (b, c, t, h, w), and what the network is told about them."""
        source = generator_of((*stream, 2))
        x0 = self.encoders.latents(batch, self.device, source.initial_seed())
        condition = Condition(batch["label"], self.encoders.text(batch, self.device))
        if self.given_frames.is_used:
            mask = given_mask(self.given_frames, x0.shape[2], len(x0), source)
            condition = condition._replace(frames=frames_of(x0, mask))
        return x0, condition

    def _losses(
        self, x0: Tensor, condition: Condition, mode: PatchMode, stream: tuple[int, ...], *, drop: bool
    ) -> Tensor:  # (b,)
        objective, source = self.objective, generator_of(stream)
        drawn = draw_times(
            len(x0),
            distribution=objective.times,
            mean=objective.time_mean,
            std=objective.time_std,
            shift=self.mode_choice.time_shift(mode, objective.time_shift),
            within=self.mode_choice.time_range(mode),
            generator=source,
        )
        chance = torch.rand(len(x0), generator=source) if drop else None
        condition = dropped(condition, chance, objective, num_classes=self.clips.num_classes)
        time = drawn.to(x0.device)
        noise = torch.randn(x0.shape, device=x0.device, generator=generator_of(stream, x0.device))
        output = self.network(self.process.add_noise(x0, noise, time), time, condition, mode)
        target = self.process.target_of(x0, noise, time)
        losses = partial(denoising_loss, self.process, target=target, time=time, space=objective.loss_space)
        self.zero_loss = losses(torch.zeros_like(output)).mean().detach()
        return losses(output)

    def _matched_at(self, global_step: int) -> tuple[PatchMode, int] | None:
        """Weak mode and first solver step of distribution matching; ``None`` where a step has none."""
        if self.mode_at(global_step) != self.modes[0]:
            return None
        return self.matching.start(global_step, self.modes, self.sampling.num_inference_steps)

    def _discrepancy(
        self, x0: Tensor, condition: Condition, start: tuple[PatchMode, int], stream: tuple[int, ...]
    ) -> Tensor:
        weak, first = start
        condition = dropped(condition, None, self.objective, num_classes=self.clips.num_classes)._replace(frames=None)
        source = generator_of(stream, x0.device)
        noises = [torch.randn(x0.shape, device=x0.device, generator=source) for _ in range(2)]
        return discrepancy(
            lambda x, time, mode: self.network(x, time, condition, mode), self.process, self.matching, x0,
            (noises[0], noises[1]), self.times[first : first + self.matching.num_steps + 1], (weak, self.modes[0]),
        )  # fmt: skip

    def step_macs(self, global_step: int) -> int:
        """Return the MACs of each batch of a training step on each rank; a backward pass costs two forward passes."""
        calls, size = [(self.mode_at(global_step), 3)], self.picture_steps.size_at(global_step, self.latent_size)
        if (start := self._matched_at(global_step)) is not None:
            calls += [(start[0], self.matching.weak_steps), (self.modes[0], 3 * self.matching.native_steps)]
        return self._macs(calls, size, self.batch_size_at(global_step))

    def _macs(self, calls: list[tuple[PatchMode, int]], size: tuple[int, int, int], batch: int = 1) -> int:
        return step_macs(self.network.config, size, calls, batch, text_tokens=self.encoders.text_tokens)

    def configure_optimizers(self) -> Any:
        settings = self.optimizer_settings
        return with_rate(build_optimizer(self.network, settings), settings, self.progress_at)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the norm of the gradient before clipping."""
        super().on_before_optimizer_step(optimizer)
        if self.global_step % self.log_every == 0:
            self.log("train/grad_norm", self.grad_norm)
            self.log("train/lr", optimizer.param_groups[-1]["lr"])

    def recipe(self) -> Recipe:
        data = getattr(self._trainer, "datamodule", None)
        return Recipe(
            process=self.process,
            **self.encoders.recipe_entries(),
            size=Size3(*self.latent_size),
            fps=getattr(data, "fps", 0) or 8,
            class_names=getattr(data, "class_names", ()),
            sampling=self.sampling,
            global_step=self.step_of_weights,
            step_floor=self.step_floor,
            spectrum=self.spectrum_meter.spectrum(),
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what ``flexivid.load`` and a resumed run need to the checkpoint."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[KEY] = {
            "model": self.network.config.to_dict(),
            "recipe": self.recipe().to_dict(),
            "plans": [list(p) for p in self.horizons],
            "asked_steps": self.asked_steps,
            "spectrum_meter": self.spectrum_meter.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another training; restore its length, or set the one that is asked for now."""
        super().on_load_checkpoint(checkpoint)
        entry = checkpoint.get(KEY, {"model": {}, "recipe": {}})
        resume.require_same_network(entry["model"], self.network.config.to_dict())
        resume.require_same_meaning(entry["recipe"], self.recipe().to_dict())
        resume.require_same_optimizer(checkpoint, self.optimizer_settings)
        resume.prepare_weights(checkpoint, self._trainer)
        self.horizons = [(int(first), int(total)) for first, total in entry["plans"]]
        self.loaded_step = checkpoint.get("global_step", 0)
        sums = entry.get("spectrum_meter", {"power": []})
        if [len(row) for row in sums["power"]] == list(self.latent_size):  # a run may resume with clips of another size
            self.spectrum_meter.load_state_dict(sums)
        if self.asked_steps not in (0, entry.get("asked_steps", self.horizons[0][1]), self.total_steps):
            self.horizons.append((checkpoint["global_step"], self.asked_steps))
