"""What callbacks evaluate: plans of the budgets that the network can meet, against real clips of its data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

from flexivid.budget.table import read_tables
from flexivid.data.module import VideoDataModule
from flexivid.data.workers.pool import num_cores
from flexivid.evaluation.clips import ClipSet, clip_settings, find_clips
from flexivid.evaluation.features import ClipFeatures
from flexivid.evaluation.prompts import evaluation_conditions
from flexivid.metrics.extractors.extractor import Extractor
from flexivid.model.checkpoint import fingerprint
from flexivid.model.flexidit import FlexiDiT
from flexivid.sampling.conditions import Conditions, conditions_for
from flexivid.sampling.encoders import forget_encoder
from flexivid.sampling.plan import Plan, plan_for
from flexivid.sampling.settings import Settings
from flexivid.training.module import FlexiDiffusion


@contextmanager
def sampled_network(module: FlexiDiffusion) -> Iterator[FlexiDiT]:
    """The network, ready to sample from: in eval mode, with the recipe and the encoders of the training."""
    network, was_training = module.network, module.network.training
    network.recipe = module.recipe()
    module.encoders.share_with(network)
    network.eval()
    try:
        yield network
    finally:
        network.train(was_training)


def sample_conditions(network: FlexiDiT, num_videos: int, clips: Callable[[], ClipSet]) -> Conditions:
    """Classes in turn and, for a network that reads text, the captions of ``clips()``, which is called only then.

    Clips without captions are a ``ValueError``.
    """
    if not network.config.text_channels:
        return conditions_for(network, num_videos)
    conditions = evaluation_conditions(network, num_videos, clips())
    forget_encoder(network)
    return conditions


def possible_plans(
    network: FlexiDiT, settings: Settings, budgets: Sequence[float], folder: Path | None = None
) -> list[Plan]:
    """Plans of the budgets that can be met; warns of each that cannot, and refuses if none can (``ValueError``).

    ``FindPlans`` may have written its measurements to the folder; those of other weights are ignored.
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


Reference = Literal["auto", "train", "val"]


def training_clips(trainer: Trainer, num_clips: int, reference: Reference = "train") -> ClipSet:
    """Fixed clips of the held-out videos or of those trained on, as the evaluation of a finished run takes them."""
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, VideoDataModule):
        raise ValueError(f"got data of type {type(data).__name__}; expected VideoDataModule; leave FVDVsBudget out")
    real = data.real_clips()
    settings = clip_settings(real.settings._asdict(), data.clip_size)
    split = "held_out" if reference == "val" else "train"
    held_out_from = num_clips if reference == "auto" else None
    collection, split = (real.collection, "all") if real.note else (data.manifests, split)
    trained = (real.settings, data.buckets)
    clips = find_clips(
        collection, settings, split=split, num_clips=num_clips, held_out_from=held_out_from, trained=trained
    )
    return replace(clips, split=real.note or clips.split)


def clip_features(trainer: Trainer, extractor: Extractor, clips: ClipSet, batch_size: int) -> ClipFeatures:
    """Features of clips in batches of some size; the ranks of a trainer share the cores that decode."""
    return ClipFeatures(extractor, clips, batch_size=batch_size, num_workers=max(1, num_cores() // trainer.world_size))
