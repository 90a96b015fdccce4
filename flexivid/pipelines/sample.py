"""Sampling with a diffusers pipeline as shipped (text encoder, solver, autoencoder) under compute budgets."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flexivid.budget.cost import human
from flexivid.media.write import write_grid, write_video
from flexivid.pipelines.budget import apply_budget, apply_schedule
from flexivid.pipelines.plan import STAGED, PretrainedPlan, plan_steps
from flexivid.pipelines.record import NetworkReachedError
from flexivid.pretrained.adapter import load_adapter, read_settings
from flexivid.pretrained.flexify import flexi_of
from flexivid.pretrained.merged import merge_lora
from flexivid.pretrained.model_files import ANY_FILES, TRANSFORMER, ModelFiles, files_of, plain_loading
from flexivid.runtime.device import dtype_of, pick_device
from flexivid.runtime.finite import require_finite_samples, require_finite_weights
from flexivid.runtime.paths import resolve
from flexivid.sampling.conditions import checked_prompt
from flexivid.sampling.sample_folder import file_name, prepare_folder

PIPELINE_OPTIONS = ("num_inference_steps", "guidance_scale", "num_frames", "height", "width", "negative_prompt")


def load_pipeline(
    model: str | Path,
    adapter: str | Path,
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    files: ModelFiles = ANY_FILES,
) -> Any:
    """Load a diffusers pipeline (folder or hub id), and give its transformer the modes of an adapter folder."""
    read_settings(adapter)  # refuses a wrong folder before much is loaded
    pipe = complete_pipeline(model, dtype=dtype, files=files)
    load_adapter(pipe.transformer, adapter, check=files.keep_fingerprint(pipe.transformer))
    require_finite_weights(flexi_of(pipe.transformer).state_dict(), adapter)
    return pipe.to(device)


def complete_pipeline(model: str | Path, *, dtype: torch.dtype, files: ModelFiles = ANY_FILES, **parts: Any) -> Any:
    """Load a diffusers pipeline; ``parts`` are those in memory already. A part that is missing is a ``ValueError``."""
    from diffusers import DiffusionPipeline

    model = resolve(model)
    files.check_folder(Path(model) / TRANSFORMER)
    with plain_loading(f"pipeline {model}", "a folder of a whole pipeline or a hub id"):
        pipe = DiffusionPipeline.from_pretrained(model, dtype=dtype, **parts, **files.settings)
    for part in ("transformer", "text_encoder"):
        if part in pipe.config and getattr(pipe, part, None) is None:
            raise ValueError(f"got a pipeline without its {part}; expected all parts; download the whole pipeline")
    if getattr(pipe, "transformer", None) is None:
        raise ValueError(f"got a {type(pipe).__name__} without a transformer; expected one; choose another pipeline")
    return pipe


def sample_pipeline(
    pipe: Any,
    prompts: Sequence[str],
    budget: float,
    plan: PretrainedPlan,
    *,
    folder: Path,
    fps: float,
    seed: int = 0,
    **settings: Any,
) -> tuple[list[Path], list[np.ndarray]]:
    """Make and write one video a prompt into a folder that exists; video i starts from the noise of seed + i.

    The budget only names the files: ``plan`` says which modes are used. ``settings`` are the pipeline's own, with
    ``num_inference_steps`` if the plan has another number than its default. Returns files and frames, (t, h, w, 3)
    uint8. A video that holds NaN is not written (``NotFiniteSampleError``).
    """
    files, videos = [], []
    with apply_schedule(pipe, plan.modes, guide_modes=plan.guide_modes):
        for number, prompt in enumerate(prompts):
            source = torch.Generator().manual_seed(seed + number)
            frames = pipe(prompt, generator=source, output_type="np", **settings)[0][0]  # (t, h, w, 3) in [0, 1]
            require_finite_samples(torch.as_tensor(frames)[None], [number])
            videos.append((frames * 255).round().clip(0, 255).astype(np.uint8))
            files.append(write_video(folder / file_name(number, seed, budget), videos[-1], fps))
    return files, videos


def full_plan(pipe: Any, prompt: str, **settings: Any) -> PretrainedPlan:
    """Return the plan of one video at full compute, by running the pipeline up to the first call of its network."""
    plans: list[PretrainedPlan] = []

    def stop(plan: PretrainedPlan) -> None:
        plans.append(plan)
        raise NetworkReachedError

    pipe.set_progress_bar_config(disable=True)  # it would stay at 0 %
    with suppress(NetworkReachedError), apply_budget(pipe, 1.0, on_plan=stop):
        pipe(prompt, output_type="latent", **settings)
    pipe.set_progress_bar_config()
    return plans[0]


def default_planner(pipe: Any, settings: Mapping[str, Any], full: PretrainedPlan) -> str:
    """Return ``staged`` if the number of steps can be planned (one call of the solver a step), else ``weak_first``."""
    parameter = inspect.signature(type(pipe).__call__).parameters.get("num_inference_steps")
    steps = settings.get("num_inference_steps", None if parameter is None else parameter.default)
    return STAGED if steps == len(full.modes) else "weak_first"


def run_pipeline(options: Any) -> dict[str, Any]:
    """Run ``flexivid.sample --pipeline`` with the options of the program; return the summary for ``--json``."""
    _check(options)
    device = pick_device(options.device)
    dtype = dtype_of(device, options.precision)
    budgets = [_fraction(word) for word in options.budget or ["1"]]
    pipe = load_pipeline(options.pipeline, options.adapter, dtype=dtype, device=device, files=files_of(options))
    if options.merge_lora:
        print(f"LoRA merged into copies: {merge_lora(pipe.transformer) / 2**20:.1f} MiB more")
    prompts = list(options.prompt) * (options.num_videos or 1)
    settings = _settings(pipe, options)
    full = full_plan(pipe, prompts[0], **settings)
    planner = options.planner or default_planner(pipe, settings, full)
    choice = {"guide_mode": options.guide_mode, "planner": planner}
    plans = [(budget, plan_steps(budget, full.costs, len(full.modes), **choice)) for budget in budgets]
    for budget, plan in plans:
        print(plan_line(budget, plan, len(prompts)))
    rows = [{"budget": budget, "plan": str(plan), "predicted_macs": plan.macs} for budget, plan in plans]
    if options.dry_run:
        return {"plans": rows}
    folder = prepare_folder(options.output_dir)
    movies = []
    common = {"folder": folder, "fps": options.fps or 16, "seed": options.seed, **settings}
    for row, (budget, plan) in zip(rows, plans, strict=True):
        steps = {"num_inference_steps": len(plan.modes)} if planner == STAGED else {}
        start = time.perf_counter()
        files, videos = sample_pipeline(pipe, prompts, budget, plan, **(common | steps))
        seconds = time.perf_counter() - start
        row |= {"cost": plan.budget, "seconds": seconds, "files": [str(file) for file in files]}
        print(result_line(budget, plan, seconds, len(files)))
        movies.append((f"budget {budget:g}", videos[:8]))
    movie, picture = write_grid(folder / "grid", movies, common["fps"])
    print(f"look at {picture} and {movie}")
    return {"samples": rows, "grid": [str(movie), str(picture)]}


def plan_line(budget: float, plan: PretrainedPlan, videos: int) -> str:
    """Return the line that is printed before sampling.

    Example:
        >>> plan = PretrainedPlan(("1x4x4", "native"), {"native": 3_000_000, "1x4x4": 1_000_000})
        >>> plan_line(0.7, plan, 2).split("; ")[1:]
        ['4.00 MMACs a video and branch of guidance, 66.7% of full compute', '2 videos']
    """
    steps = f"{len(plan.modes)} step{'s' * (len(plan.modes) > 1)}, {plan}"
    return f"budget {budget:g}: {steps}; {_cost(plan)}, {plan.budget:.1%} of full compute; {_count(videos)}"


def result_line(budget: float, plan: PretrainedPlan, seconds: float, videos: int) -> str:
    """Return the line that is printed after sampling; its seconds include text encoder and autoencoder."""
    return f"budget {budget:g}: {_cost(plan)}, {seconds:.2f} s for {_count(videos)}"


def _count(videos: int) -> str:
    return f"{videos} video{'s' * (videos != 1)}"


def _cost(plan: PretrainedPlan) -> str:
    return human(plan.macs) + (" a video" if plan.guide_modes else " a video and branch of guidance")


def _check(options: Any) -> None:
    for name in ("adapter", "prompt"):
        if not getattr(options, name):
            raise ValueError(f"got --pipeline without --{name}; expected both; give --{name}")
    if options.negative_prompt:
        checked_prompt(options.negative_prompt)


def _fraction(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"got --budget {word} with --pipeline; expected a fraction in (0, 1]; write it so") from None


def _settings(pipe: Any, options: Any) -> dict[str, Any]:
    """The options that were set, under their names in diffusers."""
    parameters = inspect.signature(type(pipe).__call__).parameters
    settings = {name: getattr(options, name) for name in PIPELINE_OPTIONS if getattr(options, name) is not None}
    for name in settings:
        if name not in parameters:
            raise ValueError(
                f"got --{name.replace('_', '-')} for {type(pipe).__name__}; expected no such option, which it does not"
                " take; leave it out"
            )
    return settings
