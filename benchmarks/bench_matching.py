"""Does distribution matching between weak-then-native results and noised data help, at equal compute?

A trained model is trained on twice, from the same weights on the same data, with as many MACs: with ``matching`` and
without it (which then makes more steps). Reported: Frechet distance of samples to real clips at each budget, with its
interval, before, without and with.

    python benchmarks/bench_matching.py --checkpoint RUN --data data/moving_digits --output FILE.json

The last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging

from flexivid.data.module import VideoDataModule
from flexivid.evaluation.features import extract
from flexivid.evaluation.run import Job, Request, prepare
from flexivid.media.pixels import to_bytes
from flexivid.metrics.scores import score
from flexivid.model.recipe import SamplingDefaults
from flexivid.runtime.device import fast_dtype
from flexivid.sampling.generate import generate_batches
from flexivid.sampling.plan import plan_for
from flexivid.training.distribution_matching import Matching
from flexivid.training.modes import ModeChoice, Phase
from flexivid.training.module import Clips, FlexiDiffusion
from flexivid.training.objective import Objective
from flexivid.training.optimizer import OptimizerSettings


def build(config: dict[str, Any], job: Job, matching: Matching, rate: float, seed: int) -> FlexiDiffusion:
    """What trained the model, with its weights, all modes alike and a part of its learning rate."""
    settings, model = config["model"], job.task.model
    optimizer = OptimizerSettings(**settings["optimizer"])
    rates = {key: rate * getattr(optimizer, key) for key in ("learning_rate", "muon_learning_rate")}
    size, batch = (job.task.settings.size.t, *job.task.settings.size[1:]), config["data"]["batch_size"]
    module = FlexiDiffusion(
        model.config,
        Clips(size, model.config.num_classes, batch),
        objective=Objective(**{**settings["objective"], "matching": matching}),
        mode_choice=ModeChoice([Phase(1.0, settings["mode_choice"]["phases"][-1]["probabilities"])], seed=seed),
        optimizer=replace(optimizer, **rates),
        sampling=SamplingDefaults(**settings["sampling"]),
    )
    module.network.load_state_dict(model.state_dict())
    return module


def train(module: FlexiDiffusion, config: dict[str, Any], data: str, macs: int) -> dict[str, Any]:
    """Train until the MACs are spent."""
    steps, spent, matched = 0, 0, 0
    while spent < macs:
        spent += module.step_macs(steps)
        matched += module._matched_at(steps) is not None
        steps += 1
    keys = ("num_frames", "size", "batch_size", "stride", "fps", "num_workers", "cache_gib")
    is_bf16 = fast_dtype(torch.device("cuda" if torch.cuda.is_available() else "cpu")) == torch.bfloat16
    trainer = Trainer(
        accelerator="auto", devices=1, max_steps=steps, max_epochs=-1, gradient_clip_val=1.0,
        precision="bf16-mixed" if is_bf16 else "32-true",
        callbacks=[EMAWeightAveraging(use_buffers=False, decay=0.99)], logger=False, enable_checkpointing=False,
        enable_model_summary=False, limit_val_batches=0, use_distributed_sampler=False,
    )  # fmt: skip
    started = time.perf_counter()
    trainer.fit(module, VideoDataModule(data, **{key: config["data"][key] for key in keys if key in config["data"]}))
    return {"steps": steps, "with_matching": matched, "macs": spent, "seconds": time.perf_counter() - started}


def quality(job: Job, budgets: list[float]) -> list[dict[str, float]]:
    """Score of samples at each budget, weak steps first."""
    model, settings = job.task.model, job.task.settings._replace(planner="weak_first")
    rows = []
    for budget in budgets:
        plan = plan_for(model, settings, budget)
        made = generate_batches(model, plan.schedule, settings, conditions=job.task.conditions, seed=job.task.seed)
        features = torch.cat([extract(job.task.extractor, to_bytes(videos)) for _, videos in made])
        found = score(features, job.real.all())
        rows.append({"budget": budget, "fvd": found.fvd, "low": found.low, "high": found.high})
        print(f"budget {budget}: {found.fvd:.3f} ({found.low:.3f} - {found.high:.3f})", file=sys.stderr)
    return rows


def main() -> None:
    """Train, sample, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True, help="run folder, with its config.yaml")
    parser.add_argument("--data", required=True, help="what the run was trained on")
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 1.0], help="of the discrepancy")
    parser.add_argument("--share", type=float, default=1.0, help="of native steps that have it")
    parser.add_argument("--steps", type=int, default=300, help="of the run without matching: the others spend as much")
    parser.add_argument("--rate", type=float, default=0.3, help="of the run's learning rate")
    parser.add_argument("--budgets", type=float, nargs="+", default=[1.0, 0.6, 0.25])
    parser.add_argument("--num-videos", type=int, default=256)
    parser.add_argument("--cache", default="runs/bench_matching", help="features of the real clips are kept here")
    parser.add_argument("--output", type=Path, help="also write the result here")
    options = parser.parse_args()
    config = yaml.safe_load((Path(options.checkpoint) / "config.yaml").read_text())
    request = Request(options.checkpoint, options.cache, [1.0], num_videos=options.num_videos, reference=options.data)
    job = prepare(request, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    start = {name: value.clone() for name, value in job.task.model.state_dict().items()}
    plain = build(config, job, Matching(), options.rate, 0)
    macs = sum(plain.step_macs(step) for step in range(options.steps))
    rows: list[dict[str, Any]] = [{"weight": None, "quality": quality(job, options.budgets)}]
    for weight in options.weights:
        seed_everything(0)
        job.task.model.load_state_dict(start)
        module = build(config, job, Matching(weight, options.share), options.rate, 0)
        training = train(module, config, options.data, macs)
        job.task.model.load_state_dict(module.network.state_dict())
        rows.append({"weight": weight, "training": training, "quality": quality(job, options.budgets)})
    shown = {key: getattr(options, key) for key in ("share", "rate", "num_videos")}
    result = {"question": __doc__.splitlines()[0], **shown, "metric": job.task.extractor.metric_name, "rows": rows}
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
