"""Output of an autoencoder run: reconstructions to look at, and a folder that ``build_codec`` loads."""

from __future__ import annotations

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from flexivid.media.pixels import to_unit
from flexivid.media.write import enlarge, tile, to_frames, write_grid
from flexivid.training.autoencoder.module import AutoencoderTraining
from flexivid.training.callbacks.folder import run_folder
from flexivid.training.callbacks.tensorboard import log_video

FOLDER = "autoencoder"


class ShowReconstructions(Callback):
    """Clips of the first validation batch above their reconstructions: to TensorBoard as video, to disk as a picture.

    Args:
        num_videos: Clips that are shown.
    """

    def __init__(self, num_videos: int = 6) -> None:
        self.num_videos = num_videos

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: dict[str, Tensor], batch_idx: int, _: int = 0
    ) -> None:
        """Show the first clips, with the weights that are validated."""
        assert isinstance(pl_module, AutoencoderTraining)
        if batch_idx > 0 or not trainer.is_global_zero or trainer.sanity_checking:
            return
        step = trainer.global_step
        video = to_unit(batch["video"][: self.num_videos])
        rows = [[to_frames(clip) for clip in clips] for clips in (video, pl_module.reconstruct(video))]
        fps = float(getattr(getattr(trainer, "datamodule", None), "fps", 0) or 8)
        folder = run_folder(trainer) / "reconstructions"
        folder.mkdir(parents=True, exist_ok=True)
        titles = ("clips", "reconstructions")
        write_grid(folder / f"step_{step:06d}", list(zip(titles, rows, strict=True)), fps)
        frames = tile([[enlarge(clip, 64) for clip in row] for row in rows])
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                log_video(logger, "reconstructions", frames, fps=fps, step=step)


class ExportAutoencoder(Callback):
    """Writes the autoencoder into ``autoencoder/`` of the run folder at the end. List it after the EMA."""

    @torch.no_grad()
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the weights, which the EMA callback has replaced by their average."""
        assert isinstance(pl_module, AutoencoderTraining)
        folder = run_folder(trainer) / FOLDER
        if trainer.is_global_zero and trainer.global_step > 0:
            pl_module.network.normalised(*pl_module.statistics.values())
            rank_zero_info(f"autoencoder written to {pl_module.network.save(folder)}; name this folder as codec")
