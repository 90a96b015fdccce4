"""Sample videos at any fraction of the full compute: ``python -m flexivid.sample --budget 0.25``.

Parses, calls the rooms, prints: the plan and its cost before the work, measured cost and seconds after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from flexivid.runtime import program
from flexivid.sampling.messages import describe, result_line
from flexivid.sampling.options import PLANNERS, add_sampling, sampling_options

EXAMPLES = """examples:
  python -m flexivid.sample --budget 0.25                       the newest run, a quarter of the compute
  python -m flexivid.sample --budget 1.0 0.5 0.25 --seed 7      the same noise at three budgets, side by side
  python -m flexivid.sample --budget draft --planner adaptive   little compute, each video its own schedule
  python -m flexivid.sample --budget-seconds 2.5                what this machine can do in 2.5 seconds a video
  python -m flexivid.sample --schedule "6x4x8x8,4x4x4x4"        an explicit plan: 6 steps of 4x8x8, then 4 of 4x4x4
  python -m flexivid.sample --checkpoint runs/moving_digits/version_0 --label 3 8 --num-videos 4 --dry-run
  python -m flexivid.sample --checkpoint runs/text --prompt "a red ball rolls" "a cat walks" --negative-prompt blurry
  python -m flexivid.sample --checkpoint runs/text --prompts-file prompts.txt --image first.png --num-frames 33
  python -m flexivid.sample --pipeline my_wan --adapter wan_modes --prompt "a cat walks" --budget 1 0.25
"""

PLANNER_HELP = (
    f"{', '.join(PLANNERS)} (default: what was searched, else staged); of a pipeline staged (the default, which chooses"
    " the number of steps too), weak_first, weak_last or three_phase"
)
PIPELINE_OPTIONS: tuple[str, ...] = ("adapter", "merge_lora")
PIPELINE_OPTIONS += ("variant", "revision", "local_files_only", "use_safetensors")
MODEL_OPTIONS: tuple[str, ...] = ("checkpoint", "no_ema", "label", "modes", "schedule", "budget_gmacs")
MODEL_OPTIONS += ("budget_seconds", "solver", "shift", "guidance", "guidance_interval", "compensate_guidance")
MODEL_OPTIONS += ("weak_guidance_scale", "packing", "batch_size", "compile", "frame_guidance", "window")
MODEL_OPTIONS += ("image", "last_image", "continue_from", "codec", "text_encoder")


def build_parser() -> program.ProgramParser:
    """Return the parser with all options, named as in diffusers."""
    parser = program.program_parser("sample", __doc__.splitlines()[0], EXAMPLES)
    add = parser.add_argument
    program.add_model(add)
    add("--pipeline", help="diffusers pipeline instead of a checkpoint: folder or hub id; needs --adapter and --prompt")
    add("--adapter", help="weak modes for the pipeline: a folder that flexivid.convert or a distillation wrote")
    add("--merge-lora", action="store_true", help="merge the adapter's LoRA into copies: faster, takes more memory")
    program.add_files(add)
    add("--prompt", nargs="+", help="texts, one video each; --num-videos in turn, of a pipeline as many of each")
    add("--prompts-file", help="a file of prompts, one a line, instead")
    add("--negative-prompt", help="text of what not to show: guidance leads away from it")
    add("--image", help="picture that videos begin with, for models with given frames; it is cut to their shape")
    add("--last-image", help="picture that videos end with, likewise")
    add("--continue-from", help="video whose last frames videos begin with, likewise, up to half of their own")
    program.add_sources(add)
    about = "fractions of full compute, or draft, balanced, full (default: 1)"
    add("--budget", older=["--budgets"], nargs="+", help=about)
    add("--budget-gmacs", type=float, nargs="+", help="budgets in 10^9 multiply-accumulates a video instead")
    add("--budget-seconds", type=float, nargs="+", help="budgets in seconds of the network a video instead")
    add("--schedule", nargs="+", help="explicit plans instead of budgets, e.g. 6x4x8x8,4x4x4x4,1x2x4x4")
    add("--num-videos", type=int, help="number of videos (default: 1, or one a label)")
    add("--label", nargs="+", help="classes by name or number, in turn (default: all classes in turn)")
    add_sampling(add, planner={"help": PLANNER_HELP})
    add("--seed", type=int, default=0, help="video i starts from the noise of seed + i")
    program.add_size(add)
    add("--fps", type=float, help="frames a second of the files (default: as trained)")
    add("--compile", action="store_true", help="one static graph a mode: a slow start, then faster; for many videos")
    add("--output-dir", default="samples", help="where files go (default: samples)")
    add("--dry-run", action="store_true", help="print parameters, plan, cost and memory, and stop")
    program.add_json(add)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments (default: the command line's)."""
    with program.program_options(build_parser(), argv) as options:
        run(options)


def run(options: Namespace) -> None:
    """Load the model, print the plans, sample, print what was measured."""
    options.height, options.width = program.pixels_of(options)
    if options.fps is not None and not options.fps > 0:
        raise ValueError(f"got --fps {options.fps:g}; expected more than 0; change it or leave it out")
    for flag in program.flags_set(build_parser(), options, MODEL_OPTIONS if options.pipeline else PIPELINE_OPTIONS):
        if options.pipeline:
            raise ValueError(f"got {flag} with --pipeline, where it has no effect; expected one of them; leave one out")
        raise ValueError(f"got {flag} without --pipeline; expected both; name a diffusers pipeline")
    if options.pipeline:
        from flexivid.pipelines.sample import run_pipeline
        from flexivid.sampling.conditions import read_prompts

        options.prompt = read_prompts(options.prompt, options.prompts_file)
        program.write_json(options.json, run_pipeline(options))
        return
    model, plans, settings, conditions = _prepare(options)
    if options.dry_run:
        from flexivid.model.memory import sampling_report

        report = sampling_report(model.config, settings.call_size, settings.batch_size, settings.text_tokens)
        print("\n".join(report))
        return
    from flexivid.sampling import sample_folder
    from flexivid.sampling.compiling import warm_up_plans
    from flexivid.sampling.encoders import codec_of

    codec_of(model)  # what is missing should not be noticed after the sampling
    folder = sample_folder.prepare_folder(options.output_dir)
    if options.compile:
        seconds = warm_up_plans(model, [plan.followed for plan in plans], settings, len(conditions))
        print(f"compiled {len(set().union(*(plan.modes for plan in plans)))} modes in {seconds:.1f} s")
    with _progress(len(conditions)) as on_step:
        common = {"settings": settings, "conditions": conditions, "seed": options.seed}
        outcomes = sample_folder.write_samples(model, plans, folder, on_step=on_step, **common)
    for outcome in outcomes:
        print(result_line(outcome.plan.budget, outcome, outcomes[0]))
    print(f"look at {folder / 'grid.png'} and {folder / 'grid.mp4'}; one line a video in {folder / 'manifest.jsonl'}")
    program.write_json(options.json, _summary(outcomes, folder))


def _prepare(options: Namespace) -> tuple[Any, list[Any], Any, Any]:
    """Load the model, plan, and say what will be done: model, plans, settings, and what each video should show."""
    from flexivid.runtime.start import swift_imports

    with swift_imports():
        from flexivid.model import checkpoint
        from flexivid.runtime.device import pick_device
        from flexivid.sampling import compiling, encoders
        from flexivid.sampling import settings as sampling
        from flexivid.sampling.latency import known_latency
        from flexivid.sampling.plan import tables_folder

    path, note = checkpoint.choose(options.checkpoint)
    if note:
        print(note)
    model = checkpoint.load(path, ema=not options.no_ema, device=pick_device(options.device))
    model = compiling.compile_forward(model) if options.compile else model
    encoders.use_sources(model, options.codec, options.text_encoder)
    settings = sampling.settings_from(sampling_options(options)).filled(model)
    settings = sampling.resized(model, settings, options.num_frames, options.height, options.width)
    conditions = _conditions(options, model, settings)  # frames of a video are taken at the rate of the training
    model.recipe = replace(model.recipe, fps=options.fps) if options.fps else model.recipe
    settings = settings._replace(text_tokens=conditions.text_tokens)
    latency = known_latency(model, settings, len(conditions)) if options.budget_seconds else None
    plans = sampling_plans(options, model, settings, tables_folder(path), latency)
    print(f"model {path}: {model.num_parameters / 1e6:.1f} M parameters on {next(model.parameters()).device}")
    if latency:
        shown = ", ".join(f"{step} {1000 * seconds:.3g} ms" for step, seconds in latency.items())
        print(f"one step for one video, in batches as for {len(conditions)} videos: {shown}")
    for plan in plans:
        print(describe(plan, model, settings, len(conditions), latency))
    return model, plans, settings, conditions


def _conditions(options: Namespace, model: Any, settings: Any) -> Any:
    """What each video should show: classes, prompts, given frames."""
    from flexivid.sampling import conditions, encoders, pictures
    from flexivid.sampling.settings import label_numbers

    files = {"image": options.image, "last_image": options.last_image, "video": options.continue_from}
    if any(files.values()) and not model.config.given_frames:
        raise ValueError(
            "got --image, --last-image or --continue-from for a model without given frames; expected none; leave them"
            " out, or train with given_frames"
        )
    frames, notes = pictures.read_pictures(model, settings, **files)
    print(*notes, sep="\n", end="\n" * bool(notes))
    prompts = conditions.read_prompts(options.prompt, options.prompts_file)
    if model.config.text_channels and not prompts:
        print("no --prompt: the model is shown the null text")
    chosen = conditions.conditions_for(
        model,
        options.num_videos,
        labels=label_numbers(model, options.label),
        prompts=prompts,
        negative_prompt=options.negative_prompt and conditions.checked_prompt(options.negative_prompt),
        frames=None if frames is None else pictures.given_frames(model, settings, frames),
    )
    encoders.forget_encoder(model)
    return chosen


def sampling_plans(options: Namespace, model: Any, settings: Any, folder: Path, latency: Any = None) -> list[Any]:
    """One plan a budget, or a schedule where those are given."""
    from flexivid.budget.table import read_tables
    from flexivid.sampling.plan import plan_for

    amounts = budget_amounts(options)
    if options.schedule:
        plans = [plan_for(model, settings, 1.0, text) for text in options.schedule]
    else:
        tables = read_tables(folder)
        plans = [plan_for(model, settings, amount, tables=tables, latency=latency) for amount in amounts]
    budgets = [f"{plan.budget:g}" for plan in plans]
    if len(set(budgets)) < len(budgets):
        raise ValueError(
            f"got plans of budgets {', '.join(budgets)}; expected no two alike, for files are named by them; run them"
            " one by one, each with its own --output-dir"
        )
    return plans


def budget_amounts(options: Namespace) -> list[Any]:
    """The budgets, in the unit of the one flag that is used."""
    from flexivid.budget.allowance import Amount, number_or_preset

    flags = {
        "--schedule": options.schedule,
        "--budget": options.budget,
        "--budget-gmacs": options.budget_gmacs,
        "--budget-seconds": options.budget_seconds,
    }
    used = [flag for flag, values in flags.items() if values]
    if len(used) > 1 or (options.schedule and options.planner):
        both = used[:2] if len(used) > 1 else ["--schedule", "--planner"]
        raise ValueError(f"got {' and '.join(both)}; expected one of them; leave one out")
    if options.budget_gmacs or options.budget_seconds:
        unit = "gmacs" if options.budget_gmacs else "seconds"
        return [Amount(value, unit) for value in options.budget_gmacs or options.budget_seconds]
    return [Amount(number_or_preset(word)) for word in options.budget or ["1"]]


@contextmanager
def _progress(num_videos: int) -> Iterator[Callable[[Any], Callable[[int, Any], None]]]:
    """Yield a function that shows a bar for a plan, naming the current mode, and returns what moves the bar."""
    from flexivid.runtime.console import progress_bars

    with progress_bars("sample steps") as progress:

        def on_step(plan: Any) -> Callable[[int, Any], None]:
            task = progress.add_task(f"budget {plan.budget:g}", total=len(plan.schedule) * num_videos)
            return lambda count, step: progress.update(
                task, advance=count, description=f"budget {plan.budget:g}, mode {step}"
            )

        yield on_step


def _summary(outcomes: Sequence[Any], folder: Path) -> dict[str, Any]:
    rows = [
        {
            "budget": outcome.plan.budget,
            "plan": str(outcome.plan.schedule),
            "predicted_macs": outcome.predicted_macs,
            "measured_macs": outcome.measured_macs,
            "seconds": outcome.seconds,
            "files": [str(file) for file in outcome.files],
        }
        for outcome in outcomes
    ]
    return {"samples": rows, "grid": [str(folder / "grid.mp4"), str(folder / "grid.png")]}


if __name__ == "__main__":
    main()
