"""TensorBoard's pages beside scalars: looping videos, the curve of FVD against compute, settings beside results."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import FileWriter
from torch.utils.tensorboard.summary import hparams

from flexivid.evaluation.result import Evaluation
from flexivid.media.write import enlarge, tile

AUC = "val/fvd_auc"


def log_samples(
    logger: TensorBoardLogger, budget: float, videos: Sequence[np.ndarray], *, fps: float, step: int
) -> None:
    """Show videos, uint8 (t, h, w, 3), side by side as ``samples/budget_0.25``."""
    frames = tile([[enlarge(video, 64) for video in videos]])
    log_video(logger, f"samples/budget_{budget:g}", frames, fps=fps, step=step)


def log_video(logger: TensorBoardLogger, tag: str, frames: np.ndarray, *, fps: float, step: int) -> None:
    """Show uint8 frames (t, h, w, 3) as a looping video in TensorBoard.

    TensorBoard's videos are GIFs in an image summary; torch's ``add_video`` writes the same but needs moviepy < 2.
    """
    pictures = [Image.fromarray(frame) for frame in frames]
    data = io.BytesIO()
    pictures[0].save(data, format="gif", save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0)
    image = Summary.Image(height=frames.shape[1], width=frames.shape[2], colorspace=3)
    image.encoded_image_string = data.getvalue()
    _write(logger, [Summary(value=[Summary.Value(tag=tag, image=image)])], step)


def budget_tag(budget: float) -> str:
    """Where the FVD of a budget is logged.

    Example:
        >>> budget_tag(0.25), rival_tag(0.25)
        ('val/fvd/budget_0.25', 'val/fvd_fewer_steps/budget_0.25')
    """
    return f"val/fvd/budget_{budget:g}"


def rival_tag(budget: float) -> str:
    """Where the FVD of native steps alone is logged, as many as a budget pays for."""
    return f"val/fvd_fewer_steps/budget_{budget:g}"


def curve_scalars(evaluation: Evaluation) -> dict[str, float]:
    """FVD of each budget, that of native steps alone for the same compute, and the mean of the budgets, by tag."""
    plans = {budget_tag(row.budget): row.scores.fvd for row in evaluation.rows}
    rivals = {rival_tag(row.budget): row.rival.scores.fvd for row in evaluation.rows if row.rival}
    return {AUC: evaluation.fvd_auc, **plans, **rivals}


def log_curve(logger: TensorBoardLogger, evaluation: Evaluation, figure: Figure) -> None:
    """Show the curve, and the protocol, which names the metric; the tags of scores do not."""
    step = evaluation.global_step
    rows = [f"| {name} | {value} |" for name, value in evaluation.protocol._asdict().items()]
    logger.experiment.add_figure("val/fvd_vs_compute", figure, step)
    logger.experiment.add_text("val/fvd_protocol", "\n".join([f"| {evaluation.metric} | |", "|-|-|", *rows]), step)


def log_layout(logger: TensorBoardLogger, evaluation: Evaluation) -> None:
    """Lay out TensorBoard's custom scalars, once a run: the FVD of all budgets over the steps in one chart."""
    tags = [budget_tag(row.budget) for row in evaluation.rows]
    rivals = [rival_tag(row.budget) for row in evaluation.rows if row.rival]
    charts = {evaluation.metric: ["Multiline", tags], f"mean {evaluation.metric}": ["Multiline", [AUC]]}
    charts |= {f"{evaluation.metric}, fewer steps": ["Multiline", rivals]} if rivals else {}
    logger.experiment.add_custom_scalars({"FVD at each budget": charts})


def log_settings(logger: TensorBoardLogger, settings: Mapping[str, Mapping[str, Any]], evaluation: Evaluation) -> None:
    """Show the settings of a run, by section, beside its latest scores in TensorBoard's hyperparameters, once a run."""
    plain = {
        f"{section}/{name}": value if isinstance(value, (bool, int, float, str)) else str(value)
        for section, values in settings.items()
        for name, value in values.items()
    }
    _write(logger, hparams(plain, curve_scalars(evaluation)), evaluation.global_step)


def _write(logger: TensorBoardLogger, summaries: Sequence[Any], step: int | None) -> None:
    writer = logger.experiment.file_writer or FileWriter(logger.log_dir)  # a closed SummaryWriter has none
    for summary in summaries:
        writer.add_summary(summary, step)
    writer.flush()
