"""FVD against compute while training: when it is evaluated, and where the results go.

How ranks share the work is in ``fvd_shares``. An evaluation that fails is a warning, on all ranks alike; samples
that are not finite are an error.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from rich.console import Console

from flexivid.evaluation.curve import curve_figure
from flexivid.evaluation.samples import Evaluation, Made, check_frames
from flexivid.metrics.extractors.extractor import build_extractor
from flexivid.runtime.distributed import FailedRankError, on_all_ranks
from flexivid.runtime.files import atomic_write
from flexivid.training.callbacks.folder import is_waiting, refuse_raw_weights, run_folder
from flexivid.training.callbacks.fvd_shares import Question, Shares
from flexivid.training.callbacks.samples import SampleVideos
from flexivid.training.callbacks.table import curve_table
from flexivid.training.callbacks.tensorboard import curve_scalars, log_curve, log_layout, log_samples, log_settings
from flexivid.training.module import FlexiDiffusion

FOLDER = "evaluations"


class FVDVsBudget(Callback):
    """Evaluates FVD at each budget, with validations and at the end; list it after the EMA.

    All ranks make their share of the same videos (noise and label depend on a video's number alone), in batches that do
    not depend on the number of ranks, so that the result does not either. Scores go to the loggers as
    ``val/fvd/budget_0.25`` and ``val/fvd_auc``, those of native steps alone for the same compute as
    ``val/fvd_fewer_steps/budget_0.25``, the curve of every evaluated step to TensorBoard as
    ``val/fvd_vs_compute``, everything to ``evaluations/step_000500.json`` in the run folder, a table to the terminal at
    the end. FVD means little with few videos, and depends on their number: compare like with like.

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
        reference: Literal["auto", "train", "val"] = "auto",
        max_seconds: float | None = None,
        num_inference_steps: int | None = None,
        seed: int = 0,
        batch_size: int = 16,
        rivals: bool = True,
    ) -> None:
        for name, value, low in (
            ("num_videos", num_videos, 2),
            ("every_n_steps", every_n_steps or 0, 0),
            ("batch_size", batch_size, 1),
        ):
            if value < low:
                raise ValueError(f"got {name}={value}; expected at least {low}; raise FVDVsBudget.{name}")
        if max_seconds is not None and not max_seconds > 0:
            raise ValueError(f"got max_seconds={max_seconds}; expected more than 0; change FVDVsBudget.max_seconds")
        if reference not in ("auto", "train", "val"):
            raise ValueError(f"got reference={reference!r}; expected auto, train or val; change FVDVsBudget.reference")
        if len(set(budgets)) < max(1, len(budgets)) or not all(0 < budget <= 1 for budget in budgets):
            raise ValueError(
                f"got budgets {list(budgets)}; expected different ones in (0, 1]; change FVDVsBudget.budgets"
            )
        self.budgets, self.extractor, self.every_n_steps = tuple(budgets), extractor, every_n_steps
        sampling = {"num_inference_steps": num_inference_steps, "batch_size": batch_size}
        self.question = Question(self.budgets, num_videos, sampling, seed, reference, max_seconds, rivals)
        self._shares: Shares | None = None
        self._evaluation: Evaluation | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find what is missing now rather than after hours of training."""
        refuse_raw_weights(trainer, self)
        assert isinstance(pl_module, FlexiDiffusion)
        if self._shares is None:
            try:
                self._shares = on_all_ranks(lambda: self._prepare(trainer, pl_module))
            except FailedRankError as error:
                rank_zero_warn(f"there will be no FVD: {error}. Training goes on without")

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The averaged weights are in place from here to the end of the validation."""
        last = self._evaluation.global_step or 0 if self._evaluation else 0
        due = self.every_n_steps is None or 0 < self.every_n_steps <= trainer.global_step - last
        assert isinstance(pl_module, FlexiDiffusion)
        wanted = due and not trainer.sanity_checking and not is_waiting(pl_module)
        if wanted and self._evaluate(trainer, pl_module):
            assert self._evaluation is not None
            pl_module.log_dict(curve_scalars(self._evaluation), logger=False, sync_dist=True)  # for ModelCheckpoint

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Once more, with the final weights, unless the last validation has done so."""
        assert isinstance(pl_module, FlexiDiffusion)
        step = trainer.global_step
        done = self._evaluation is not None and self._evaluation.global_step == step
        if step == 0 or not (done or self._evaluate(trainer, pl_module)):
            return
        assert self._evaluation is not None
        if trainer.is_global_zero:
            Console().print(curve_table(self._evaluation))

    def _prepare(self, trainer: Trainer, module: FlexiDiffusion) -> Shares:
        extractor = build_extractor(self.extractor, device=trainer.strategy.root_device)
        check_frames(extractor, module.clips.size[0])
        return Shares(self.question, extractor, rank=trainer.global_rank, world_size=trainer.world_size)

    def _evaluate(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        """Evaluate and show; says whether that went well."""
        assert isinstance(pl_module, FlexiDiffusion)
        if self._shares is None:
            return False
        network, shares, started = pl_module.network, self._shares, time.perf_counter()
        network.recipe, was_training = pl_module.recipe(), network.training
        network.eval()
        try:
            run = run_folder(trainer)  # every rank has to ask
            shares.question, folder = shares.question._replace(tables=run), run / FOLDER
            evaluation, made = shares.evaluate(network, getattr(trainer, "datamodule", None))
            seconds = time.perf_counter() - started
            on_all_ranks(lambda: self._keep(pl_module, folder, evaluation, made, seconds))
        except FailedRankError as error:
            rank_zero_warn(f"no FVD at step {trainer.global_step}: {error}. Training goes on")
            return False
        finally:
            network.train(was_training)
        self._evaluation = evaluation
        return True

    def _keep(
        self, module: FlexiDiffusion, folder: Path, evaluation: Evaluation, made: Sequence[Made], seconds: float
    ) -> None:
        """To files and loggers, by the first rank."""
        trainer = module.trainer
        if not trainer.is_global_zero:
            return
        file = _write(folder, evaluation)
        figure = curve_figure(_alike(folder, evaluation))
        figure.savefig(folder / "fvd_vs_compute.png")
        for logger in trainer.loggers:
            logger.log_metrics({**curve_scalars(evaluation), "perf/fvd_seconds": seconds}, evaluation.global_step)
            if isinstance(logger, TensorBoardLogger):
                log_curve(logger, evaluation, figure)
                self._show_samples(logger, trainer, evaluation, made)
                if self._evaluation is None:
                    log_layout(logger, evaluation)
                    log_settings(logger, _settings(module), evaluation)
        rank_zero_info(f"mean {evaluation.metric} {evaluation.fvd_auc:.4g} ({seconds:.0f} s): {file}")

    def _show_samples(
        self, logger: TensorBoardLogger, trainer: Trainer, evaluation: Evaluation, made: Sequence[Made]
    ) -> None:
        """Videos of the budgets that ``SampleVideos`` does not show."""
        callbacks, data = trainer.callbacks, trainer.datamodule  # type: ignore[attr-defined]
        shown = {budget for other in callbacks if isinstance(other, SampleVideos) for budget in other.budgets}
        for number, row in enumerate(evaluation.rows):
            if row.budget not in shown:
                videos = [frames for one in made if one.plan == number for frames in one.frames.numpy()]
                log_samples(logger, row.budget, videos, fps=data.fps or 8.0, step=trainer.global_step)


def _write(folder: Path, evaluation: Evaluation) -> Path:
    """The evaluation as a file, which appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"step_{evaluation.global_step:06d}.json"
    with atomic_write(file) as part:
        part.write_text(json.dumps(evaluation.to_json(), indent=2) + "\n")
    return file


def _alike(folder: Path, evaluation: Evaluation) -> list[Evaluation]:
    """This evaluation after the earlier ones of the run, also of before a resume, that were measured alike."""
    found = [Evaluation.from_json(json.loads(file.read_text())) for file in sorted(folder.glob("step_*.json"))]
    step = evaluation.global_step or 0
    earlier = [one for one in found if one.protocol == evaluation.protocol and (one.global_step or 0) < step]
    return [*earlier, evaluation]


def _settings(module: FlexiDiffusion) -> dict[str, dict[str, Any]]:
    return {
        "network": module.network.config.to_dict(),
        "objective": asdict(module.objective),
        "optimizer": asdict(module.optimizer_settings),
        "data": module.clips._asdict(),
    }
