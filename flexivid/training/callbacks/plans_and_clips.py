"""What callbacks evaluate: plans of the budgets that the network can meet, against real clips of its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

from flexivid.budget.table import read_tables
from flexivid.data.module import VideoDataModule
from flexivid.data.workers.pool import num_cores
from flexivid.evaluation.clips import clip_settings, find_clips
from flexivid.evaluation.features import ClipFeatures
from flexivid.metrics.extractors.extractor import Extractor
from flexivid.model.checkpoint import fingerprint
from flexivid.model.flexidit import FlexiDiT
from flexivid.sampling.plan import Plan, plan_for
from flexivid.sampling.settings import Settings


def possible_plans(
    network: FlexiDiT, settings: Settings, budgets: Sequence[float], folder: Path | None = None
) -> list[Plan]:
    """Plans of the budgets that can be met; warns of each budget that cannot.

    Args:
        network: The network.
        settings: From ``Sampling(...).filled(network)``.
        budgets: Fractions of full compute.
        folder: Where ``FindPlans`` may have written its measurements; those of other weights are ignored.

    Raises:
        ValueError: If no budget can be met.
    """
    tables = read_tables(folder) if folder else []
    weights = fingerprint(network) if tables else ""
    tables = [table for table in tables if table.model == weights]
    plans, reasons = [], []
    for budget in budgets:
        try:
            plans.append(plan_for(network, settings, budget, tables=tables))
        except ValueError as error:
            reasons.append(str(error))
            rank_zero_warn(f"budget {budget:g} is left out: {error}")
    if not plans:
        raise ValueError(f"got no budget that can be met: {'; '.join(reasons)}")
    return plans


def training_clips(
    trainer: Trainer,
    extractor: Extractor,
    num_clips: int,
    *,
    batch_size: int,
    reference: Literal["auto", "train", "val"] = "train",
) -> ClipFeatures:
    """Fixed clips of the held-out videos or of those trained on, as the evaluation of a finished run takes them.

    Args:
        trainer: Has the data module; its ranks share the cores that decode.
        extractor: Turns them into features.
        num_clips: At most so many.
        batch_size: Clips in one call of the extractor.
        reference: See ``FVDVsBudget``.

    Raises:
        ValueError: If the data are no videos.
    """
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, VideoDataModule):
        raise ValueError(f"got data of type {type(data).__name__}; expected VideoDataModule; leave FVDVsBudget out")
    real = data.real_clips()
    settings = clip_settings(real.settings._asdict(), data.clip_size)
    split = "held_out" if reference == "val" else "train"
    held_out_from = num_clips if reference == "auto" else None
    collection, split = (real.collection, "all") if real.note else (data.manifests, split)
    clips = find_clips(collection, settings, split=split, num_clips=num_clips, held_out_from=held_out_from)
    clips = replace(clips, split=real.note or clips.split)
    return ClipFeatures(extractor, clips, batch_size=batch_size, num_workers=max(1, num_cores() // trainer.world_size))
