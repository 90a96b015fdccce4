"""Samples while training: the same noises and labels at every budget, to TensorBoard as video and to disk."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary

from flexivid.model.flexidit import FlexiDiT
from flexivid.pipeline.generate import generate_batches
from flexivid.pipeline.sample_folder import Plan, plan_of
from flexivid.pipeline.sampling import Sampling, Settings, labels_for, plan_for
from flexivid.pipeline.video_io import enlarge, tile, to_frames, write_grid
from flexivid.training.callbacks import run_folder
from flexivid.training.module import FlexiDiffusion


class SampleVideos(Callback):
    """Samples at each budget with every validation, and at the end.

    Averaged weights are used: list it after the EMA. Each rank makes its share of the videos; noise and label depend on
    the video's number alone. Files go to ``samples/`` in the run folder.

    Args:
        budgets: Fractions of the full compute; one that the network cannot meet is left out with a warning.
        num_videos: Videos a budget.
        num_inference_steps: Solver steps; ``None`` = the recipe's.
        seed: Video i starts from the noise of seed + i.
    """

    def __init__(
        self,
        budgets: Sequence[float] = (1.0, 0.5, 0.25),
        num_videos: int = 10,
        num_inference_steps: int | None = None,
        seed: int = 0,
    ) -> None:
        self.budgets, self.num_videos, self.seed = list(budgets), num_videos, seed
        self.num_inference_steps = num_inference_steps

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse an order in which raw weights would be sampled."""
        kinds = [type(callback) for callback in trainer.callbacks]  # type: ignore[attr-defined]
        late = [kind for kind in kinds[kinds.index(type(self)) :] if issubclass(kind, WeightAveraging)]
        if late:
            raise ValueError(
                f"got SampleVideos before {late[0].__name__}; expected it after, or it samples raw weights; change the"
                " order of trainer.callbacks"
            )

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The averaged weights are in place from here to the end of the validation."""
        if not trainer.sanity_checking:
            self._sample(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Once more, with the final weights."""
        if trainer.global_step > 0:
            grid = self._sample(trainer, pl_module)
            if grid is not None:
                rank_zero_info(f"samples at budgets {', '.join(map(str, self.budgets))}: {grid}")

    def _sample(self, trainer: Trainer, pl_module: LightningModule) -> Path | None:
        assert isinstance(pl_module, FlexiDiffusion)
        network = pl_module.network
        network.recipe = pl_module.recipe()
        settings = Sampling(num_inference_steps=self.num_inference_steps).filled(network)
        labels = labels_for(network, self.num_videos, None)
        share = list(range(trainer.global_rank, len(labels), trainer.world_size))
        was_training, rows = network.training, []
        network.eval()
        for plan in self._plans(network, settings):
            made = generate_batches(network, plan.schedule, settings, labels=labels, seed=self.seed, indices=share)
            own = {i: to_frames(video) for indices, videos in made for i, video in zip(indices, videos, strict=True)}
            rows.append((plan, _gathered(own)))
        network.train(was_training)
        folder = run_folder(trainer) / "samples"
        return self._write(trainer, folder, rows, network.recipe["fps"]) if trainer.is_global_zero else None

    def _plans(self, network: FlexiDiT, settings: Settings) -> list[Plan]:
        plans = []
        for budget in self.budgets:
            try:
                plans.append(plan_of(plan_for(network, settings, budget), network, settings, budget))
            except ValueError as error:
                rank_zero_warn(f"no samples at budget {budget}: {error}")
        return plans

    def _write(
        self, trainer: Trainer, folder: Path, rows: list[tuple[Plan, list[np.ndarray]]], fps: float
    ) -> Path | None:
        """Grid to disk, a video of each budget to TensorBoard."""
        folder.mkdir(parents=True, exist_ok=True)
        titled = [(f"budget {plan.budget:g}   {plan.schedule}", videos[:10]) for plan, videos in rows]
        if not titled:
            return None
        _, picture = write_grid(folder / f"step_{trainer.global_step:06d}", titled, fps)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for plan, videos in rows:
                    frames = tile([[enlarge(video, 64) for video in videos]])
                    log_video(logger, f"samples/budget_{plan.budget:g}", frames, fps=fps, step=trainer.global_step)
        return picture


def _gathered(own: dict[int, np.ndarray]) -> list[np.ndarray]:
    """The videos of all ranks in the order of their numbers."""
    shares = [own]
    if torch.distributed.is_initialized():
        shares = [{} for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(shares, own)
    merged = {i: frames for share in shares for i, frames in share.items()}
    return [merged[i] for i in sorted(merged)]


def log_video(logger: TensorBoardLogger, tag: str, frames: np.ndarray, *, fps: float, step: int) -> None:
    """Show uint8 frames (t, h, w, 3) as a looping video in TensorBoard.

    TensorBoard's videos are GIFs in an image summary; torch's ``add_video`` writes the same but needs moviepy < 2.
    """
    pictures = [Image.fromarray(frame) for frame in frames]
    data = io.BytesIO()
    pictures[0].save(data, format="gif", save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0)
    image = Summary.Image(height=frames.shape[1], width=frames.shape[2], colorspace=3)
    image.encoded_image_string = data.getvalue()
    writer = logger.experiment._get_file_writer()
    if writer is not None:
        writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
