"""FVD against compute while training: when it is evaluated, and where the results go.

An evaluation that fails is a warning, on all ranks alike; samples that are not finite are an error.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from flexivid.evaluation.curve import curve_figure
from flexivid.evaluation.features import ClipFeatures, check_frames
from flexivid.evaluation.ranks import Ranks, evaluate_together
from flexivid.evaluation.report import CURVE, narrow_table
from flexivid.evaluation.result import Evaluation
from flexivid.evaluation.rivals import with_rivals
from flexivid.evaluation.run import Job, job_of
from flexivid.evaluation.samples import SampleBlock, Task
from flexivid.metrics.extractors.extractor import Extractor, build_extractor, for_frames
from flexivid.model.flexidit import FlexiDiT
from flexivid.runtime.console import print_numbers
from flexivid.runtime.distributed import FailedRankError, gathered, on_all_ranks
from flexivid.runtime.errors import check_settings
from flexivid.runtime.files import save_json
from flexivid.sampling.conditions import Conditions
from flexivid.sampling.settings import settings_from
from flexivid.training.callbacks.folder import is_waiting, refuse_raw_weights, run_folder
from flexivid.training.callbacks.plans_and_clips import (
    Reference,
    clip_features,
    possible_plans,
    sample_conditions,
    sampled_network,
    training_clips,
)
from flexivid.training.callbacks.samples import SampleVideos
from flexivid.training.callbacks.tensorboard import curve_scalars, log_curve, log_layout, log_samples, log_settings
from flexivid.training.module import FlexiDiffusion

FOLDER = "evaluations"


class FVDVsBudget(Callback):
    """Evaluates FVD at each budget, with validations and at the end; list it after the EMA.

    The evaluation is that of ``flexivid.evaluate``; a network that reads text is shown the captions of the real clips.
    All ranks make their share of the same videos (noise and label depend on a video's number alone), in batches that do
    not depend on the number of ranks, so that the result does not either. Scores go to the loggers as
    ``val/fvd/budget_0.25`` and ``val/fvd_auc``, those of native steps alone for the same compute as
    ``val/fvd_fewer_steps/budget_0.25``, the curve of every evaluated step to TensorBoard as ``val/fvd_vs_compute``,
    everything to ``evaluations/step_000500.json`` in the run folder, a table to the terminal at the end. FVD means
    little with few videos, and depends on their number: compare like with like.

    Args:
        budgets: Fractions of the full compute; one that the network cannot meet is left out with a warning.
        num_videos: Videos generated at each budget, and at most so many real ones.
        extractor: What features are compared: ``motion`` (shipped), ``i3d`` (the FVD of the literature, needs its
            weights), or another that ``build_extractor`` knows.
        every_n_steps: With the first validation after so many steps; ``None`` = with every one; 0 = only at the end.
        reference: Real videos are ``train`` ones or the held-out ``val`` ones; ``auto`` = held-out ones where there are
            at least ``num_videos`` clips of them, else ``train``.
        max_seconds: Make fewer videos if generation and features would take longer; decided in the first evaluation
            and kept, so that the points of a run compare.
        num_inference_steps: Solver steps; ``None`` = the recipe's.
        seed: Video i starts from the noise of seed + i.
        batch_size: Videos in one call of the network. Ranks take whole batches: have at least one for each.
        rivals: Also sample native steps alone, as many as each budget pays for: what else its compute would buy.

    Example:
        >>> FVDVsBudget(num_videos=64, every_n_steps=0).budgets
        (1.0, 0.5, 0.25)
    """

    def __init__(  # noqa: PLR0913
        self,
        budgets: Sequence[float] = (1.0, 0.5, 0.25),
        num_videos: int = 256,
        extractor: str = "motion",
        every_n_steps: int | None = None,
        reference: Reference = "auto",
        max_seconds: float | None = None,
        num_inference_steps: int | None = None,
        seed: int = 0,
        batch_size: int = 16,
        rivals: bool = True,
    ) -> None:
        are_budgets = len(set(budgets)) >= max(1, len(budgets)) and all(0 < budget <= 1 for budget in budgets)
        check_settings(
            "FVDVsBudget",
            ("budgets", list(budgets), are_budgets, "different ones in (0, 1]"),
            ("num_videos", num_videos, num_videos >= 2, "at least 2"),
            ("every_n_steps", every_n_steps, (every_n_steps or 0) >= 0, "at least 0"),
            ("reference", reference, reference in get_args(Reference), "auto, train or val"),
            ("max_seconds", max_seconds, max_seconds is None or max_seconds > 0, "more than 0"),
            ("batch_size", batch_size, batch_size >= 1, "at least 1"),
        )
        self.budgets, self.num_videos, self.extractor = tuple(budgets), num_videos, extractor
        self.every_n_steps, self.reference, self.max_seconds = every_n_steps, reference, max_seconds
        self.sampling = {"num_inference_steps": num_inference_steps, "batch_size": batch_size}
        self.seed, self.rivals = seed, rivals
        self._affordable: int | None = None  # number of videos, decided in the first evaluation
        self._network: Extractor | None = None
        self._real: ClipFeatures | None = None
        self._conditions: Conditions | None = None
        self._evaluation: Evaluation | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the extractor now: what is missing should not be noticed after hours of training."""
        refuse_raw_weights(trainer, self)
        assert isinstance(pl_module, FlexiDiffusion)
        if self._network is None:
            try:
                self._network = on_all_ranks(lambda: self._load(trainer, pl_module))
            except FailedRankError as error:
                rank_zero_warn(f"there will be no FVD: {error}. Training goes on without")

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate if it is time: the EMA callback has put in the averaged weights until validation ends."""
        last = self._evaluation.global_step or 0 if self._evaluation else 0
        is_due = self.every_n_steps is None or 0 < self.every_n_steps <= trainer.global_step - last
        assert isinstance(pl_module, FlexiDiffusion)
        is_due = is_due and not trainer.sanity_checking and not is_waiting(pl_module)
        if is_due and (evaluation := self._evaluate(trainer, pl_module)):
            pl_module.log_dict(curve_scalars(evaluation), logger=False, sync_dist=True)  # for ModelCheckpoint

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the final weights, unless the last validation already did."""
        assert isinstance(pl_module, FlexiDiffusion)
        step, evaluation = trainer.global_step, self._evaluation
        if step > 0 and (evaluation is None or evaluation.global_step != step):
            evaluation = self._evaluate(trainer, pl_module)
        if step > 0 and evaluation is not None and trainer.is_global_zero:
            title, caption, columns, rows = narrow_table(evaluation)
            print_numbers(columns, rows, title=title, caption=caption)

    def _load(self, trainer: Trainer, module: FlexiDiffusion) -> Extractor:
        num_frames = module.clips.size[0]
        extractor = for_frames(build_extractor(self.extractor, device=trainer.strategy.root_device), num_frames)
        check_frames(extractor, num_frames)
        return extractor

    def _evaluate(self, trainer: Trainer, pl_module: FlexiDiffusion) -> Evaluation | None:
        """Evaluate and show the result; ``None`` if that fails."""
        if self._network is None:
            return None
        started, run = time.perf_counter(), run_folder(trainer)  # all ranks must call it
        try:
            with sampled_network(pl_module) as network:
                job = on_all_ranks(lambda: self._job(trainer, network, run))
                evaluation, samples = self._run(job, Ranks(trainer.global_rank, trainer.world_size), started)
                seconds = time.perf_counter() - started
                on_all_ranks(lambda: self._show(pl_module, run / FOLDER, evaluation, samples, seconds))
        except FailedRankError as error:
            rank_zero_warn(f"no FVD at step {trainer.global_step}: {error}. Training goes on")
            return None
        self._evaluation = evaluation
        return evaluation

    def _job(self, trainer: Trainer, network: FlexiDiT, run: Path) -> Job:
        extractor = self._network
        assert extractor is not None
        settings = settings_from(self.sampling).filled(network)
        if self._real is None:
            clips = training_clips(trainer, self.num_videos, self.reference)
            self._real = clip_features(trainer, extractor, clips, settings.batch_size)
        real = self._real
        conditions = self._conditions or sample_conditions(network, self.num_videos, lambda: real.clips)
        self._conditions, settings = conditions, settings._replace(text_tokens=conditions.text_tokens)
        budgets = possible_plans(network, settings, self.budgets, run)
        plans = with_rivals(network, settings, budgets, rivals=self.rivals)
        fewer = conditions.take(range(min(self._affordable or len(conditions), len(conditions))))
        task = Task(network, plans, settings, fewer, extractor, self.seed, self.rivals).check()
        return job_of(task, real)

    def _run(self, job: Job, ranks: Ranks, started: float) -> tuple[Evaluation, list[SampleBlock]]:
        """Evaluate with all ranks, as many videos as there is time for."""
        batch_size = job.task.settings.batch_size * ranks.size  # of all ranks

        def afford(seconds: float) -> int:
            passed, seconds = max(gathered((time.perf_counter() - started, seconds)))
            number, limit = self.num_videos, self.max_seconds
            if limit is not None:
                number = min(number, batch_size * (1 + max(0, int((limit - passed) / seconds))))
            fewer = "" if number == self.num_videos else f", for {limit:g} seconds are not enough for more"
            against = f"{len(job.real.clips)} clips ({job.real.clips.split})"
            rest = seconds * (-(-number // batch_size) - 1)
            rank_zero_info(f"FVD of {number} videos at each budget against {against}{fewer}; {rest:.0f} seconds to go")
            self._affordable = number
            return number

        return evaluate_together(job, ranks, afford=None if self._affordable else afford)

    def _show(
        self,
        module: FlexiDiffusion,
        folder: Path,
        evaluation: Evaluation,
        blocks: Sequence[SampleBlock],
        seconds: float,
    ) -> None:
        trainer = module.trainer
        if not trainer.is_global_zero:
            return
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"step_{evaluation.global_step:06d}.json"
        save_json(file, evaluation.to_json())
        figure = curve_figure(_alike(folder, evaluation))
        figure.savefig(folder / CURVE)
        for logger in trainer.loggers:
            logger.log_metrics({**curve_scalars(evaluation), "perf/fvd_seconds": seconds}, evaluation.global_step)
            if isinstance(logger, TensorBoardLogger):
                log_curve(logger, evaluation, figure)
                self._show_samples(logger, trainer, evaluation, blocks)
                if self._evaluation is None:
                    log_layout(logger, evaluation)
                    log_settings(logger, _settings(module), evaluation)
        rank_zero_info(f"mean {evaluation.metric} {evaluation.fvd_auc:.4g} ({seconds:.0f} s): {file}")

    def _show_samples(
        self, logger: TensorBoardLogger, trainer: Trainer, evaluation: Evaluation, samples: Sequence[SampleBlock]
    ) -> None:
        """Videos of the budgets that ``SampleVideos`` does not show."""
        callbacks, data = trainer.callbacks, trainer.datamodule  # type: ignore[attr-defined]
        shown = {budget for each in callbacks if isinstance(each, SampleVideos) for budget in each.budgets}
        for number, row in enumerate(evaluation.rows):
            if row.budget not in shown:
                videos = [frames for block in samples if block.plan == number for frames in block.frames.numpy()]
                log_samples(logger, row.budget, videos, fps=data.fps or 8.0, step=evaluation.global_step or 0)


def _alike(folder: Path, evaluation: Evaluation) -> list[Evaluation]:
    """The earlier evaluations of the run that have the same protocol, also from before a resume; then this one."""
    former = [Evaluation.from_json(json.loads(file.read_text())) for file in sorted(folder.glob("step_*.json"))]
    step = evaluation.global_step or 0
    alike = [each for each in former if each.protocol == evaluation.protocol and (each.global_step or 0) < step]
    return [*alike, evaluation]


def _settings(module: FlexiDiffusion) -> dict[str, dict[str, Any]]:
    return {
        "network": module.network.config.to_dict(),
        "objective": asdict(module.objective),
        "optimizer": asdict(module.optimizer_settings),
        "data": module.clips._asdict(),
    }
