"""Find the best patch schedule for every budget at once: ``python -m flexivid.search``.

Parses, measures, prints. What is measured goes to ``schedules.json`` beside the checkpoint, where flexivid.sample finds
it, and a picture of the schedules to ``schedules.png`` (``schedules_fidelity.png`` for the goal fidelity).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from flexivid.runtime import program
from flexivid.sampling.options import MEASURED_UNDER, add_sampling, sampling_options

GOALS = {  # options of one goal alone, and what they are without being set
    "fvd": {"num_videos": 256, "reference": None, "layout": None},
    "fidelity": {"num_videos": 16, "max_switches": None},
}
SHARED = (*MEASURED_UNDER, "guidance_interval", "weak_guidance_scale", "frame_guidance", "window")  # with sampling
NOT_SEARCHED = ("planner", "compensate_guidance")  # a search compares all plans, at one scale of guidance
EXAMPLES = """examples:
  python -m flexivid.search                              the newest run: plans closest to its real videos
  python -m flexivid.search --checkpoint runs/moving_digits/version_0 --num-videos 512
  python -m flexivid.search --reference my_videos        real videos of your own
  python -m flexivid.search --goal fidelity              plans closest to the samples of full compute instead
  python -m flexivid.search --goal fidelity --num-inference-steps 10 20 --max-switches 3
"""


def build_parser() -> program.ProgramParser:
    """Return the parser with all options, those of sampling named as in ``flexivid.sample``."""
    parser = program.program_parser("search", __doc__.splitlines()[0], EXAMPLES)
    add = parser.add_argument
    program.add_model(add)
    add(
        "--goal",
        default="fvd",
        help="what is best: closest to real videos (fvd), or to the samples of full compute (fidelity), for which fewer"
        " native steps are the best by construction (default: fvd)",
    )
    number = "videos of each plan in the last round (goal fvd, default: 256), or trajectories (fidelity, default: 16)"
    add("--num-videos", older=["--num-scored"], type=int, help=number)
    add("--reference", help="goal fvd: folder of real videos (default: those of the training)")
    program.add_layout(add)
    add("--prompts-file", help="for a model with text: prompts, one a line (default: the captions of the real videos)")
    program.add_sources(add)
    add("--max-switches", type=int, help="goal fidelity: how often a schedule may change its mode (default: no limit)")
    steps = (
        "goal fvd: steps of full compute; goal fidelity: numbers of steps to measure (default: the model's, and fewer)"
    )
    hidden = {name: {"help": argparse.SUPPRESS} for name in NOT_SEARCHED}
    add_sampling(add, num_inference_steps={"nargs": "+", "help": steps}, **hidden)
    program.add_json(add)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments (default: the command line's)."""
    with program.program_options(build_parser(), argv) as options:
        run(options)


def run(options: Namespace) -> None:
    """Load, search for the goal, write, report."""
    from flexivid.budget.table import FILE
    from flexivid.model import checkpoint
    from flexivid.model.shipped import refuse_shipped
    from flexivid.runtime.device import pick_device
    from flexivid.sampling.encoders import use_sources
    from flexivid.sampling.plan import tables_folder

    if options.goal not in GOALS:
        raise ValueError(f"got goal {options.goal!r}; expected one of {', '.join(GOALS)}; choose one")
    _set_goal(options)
    path, _ = checkpoint.choose(options.checkpoint)
    refuse_shipped(path, "searched plans")
    model = checkpoint.load(path, ema=not options.no_ema, device=pick_device(options.device))
    use_sources(model, options.codec, options.text_encoder)
    print(f"model {path}: {model.num_parameters / 1e6:.1f} M parameters on {next(model.parameters()).device}")
    folder = tables_folder(path)
    picture = _score(options, model, path, folder) if options.goal == "fvd" else _measure(options, model, folder)
    flags = program.flags_set(build_parser(), options, SHARED)
    if options.goal == "fvd" and options.num_inference_steps:  # else only plans of as many steps
        flags.append("--planner searched_fvd")
    when = f"with the same {', '.join(flags)}" if flags else "from now on"
    print(f"wrote {folder / FILE}, which flexivid.sample uses {when}; look at {picture}")
    program.write_json(options.json, {"goal": options.goal, "schedules": str(folder / FILE), "picture": str(picture)})


def _set_goal(options: Namespace) -> None:
    """Fill in the defaults of the goal's own options; refuse those that have no effect."""
    for name, default in GOALS[options.goal].items():
        options[name] = default if options[name] is None else options[name]
    for goal, defaults in GOALS.items():
        for flag in program.flags_set(build_parser(), options, sorted(defaults.keys() - GOALS[options.goal].keys())):
            raise ValueError(f"got {flag} for goal {options.goal}; expected it for {goal} alone; leave it out")
    for flag in program.flags_set(build_parser(), options, NOT_SEARCHED):
        raise ValueError(f"got {flag} in a search; expected it in flexivid.sample alone; leave it out")


def _score(options: Namespace, model: Any, path: Path, folder: Path) -> Path:
    """Sample plans, compare them with real videos, store the scores; returns the picture."""
    from flexivid.budget.table import FILE, write_tables
    from flexivid.calibration import plan_search, scoring
    from flexivid.calibration.searched import draw_scores, score_lines
    from flexivid.evaluation.run import Request, run_folder

    if options.num_inference_steps and len(options.num_inference_steps) > 1:
        raise ValueError(
            f"got {len(options.num_inference_steps)} numbers of steps for goal fvd; expected one, that of full compute;"
            " plans of other numbers are tried anyway"
        )
    settings = _settings(options, model, (options.num_inference_steps or [None])[0])._replace(fixed_steps=False)
    names = ("num_videos", "reference", "layout", "prompts_file", "codec", "text_encoder")
    request = {"ema": not options.no_ema, **{name: options[name] for name in names}}
    output = str(run_folder(path) / "evaluation")
    judge = scoring.find_judge(Request(str(path), output, **request), next(model.parameters()).device)
    settings = settings._replace(text_tokens=judge.conditions.text_tokens)
    print(f"plans of any number of steps, {options.num_videos} videos in the last round, {len(judge.real)} real clips")
    with _progress("scoring", "samples") as (grow, advance):
        table = plan_search.search_plans(model, settings, judge, grow=grow, on_samples=advance)
    write_tables(folder / FILE, [table])
    for line in score_lines(model, settings, table):
        print(line)
    picture = folder / "schedules.png"
    draw_scores(model, settings, table, picture)
    return picture


def _measure(options: Namespace, model: Any, folder: Path) -> Path:
    """Measure the errors of every option at every call against full compute, store them; returns the picture."""
    from flexivid.budget.table import FILE, write_tables
    from flexivid.calibration import calibrate as calibration
    from flexivid.calibration.searched import draw_schedules, searched_lines
    from flexivid.sampling.conditions import conditions_for, read_prompts

    full = _settings(options, model, None)
    counts = options.num_inference_steps or calibration.fewer_steps(full.num_inference_steps)
    conditions = conditions_for(model, options.num_videos, prompts=read_prompts(None, options.prompts_file))
    tokens = conditions.text_tokens
    every = [_settings(options, model, steps)._replace(text_tokens=tokens) for steps in counts]
    chosen = calibration.measured_options(model, every[0])
    steps = sum(calibration.num_sample_steps(settings, len(chosen), options.num_videos) for settings in every)
    print(
        f"measuring {len(chosen)} options at every call of {', '.join(map(str, counts))} steps on {options.num_videos}"
        f" videos: {steps} sample steps"
    )
    protocol = {"num_videos": options.num_videos, "max_switches": options.max_switches, "most_steps": max(counts)}
    with _progress("measuring", "sample steps") as (grow, on_calls):
        grow(steps)
        protocol |= {"on_calls": on_calls, "conditions": conditions}
        measured = [calibration.calibrate(model, settings, **protocol) for settings in every]
    tables = calibration.relate(measured)
    write_tables(folder / FILE, tables)
    for line in searched_lines(model, every, tables, calibration.USUAL_BUDGETS):
        print(line)
    picture = folder / "schedules_fidelity.png"
    draw_schedules(model, every, tables, picture)
    return picture


def _settings(options: Namespace, model: Any, steps: int | None) -> Any:
    from flexivid.sampling.settings import settings_from

    return settings_from({**sampling_options(options), "num_inference_steps": steps}).filled(model)


@contextmanager
def _progress(work: str, unit: str) -> Iterator[tuple[Callable[[int], None], Callable[[int], None]]]:
    """Show a progress bar; yields a function that makes it longer, and one that moves it on."""
    from flexivid.runtime.console import progress_bars

    with progress_bars(unit) as progress:
        task = progress.add_task(work, total=0)

        def grow(count: int) -> None:
            progress.update(task, total=(progress.tasks[0].total or 0) + count)

        yield grow, lambda count: progress.advance(task, count)


if __name__ == "__main__":
    main()
