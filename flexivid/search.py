"""Find the best patch schedule for every budget at once: ``python -m flexivid.search``.

Parses, measures, prints. What is measured goes to ``schedules.json`` beside the checkpoint, where flexivid.sample finds
it, and a picture of the schedules to ``schedules.png`` (``schedules_fvd.png`` for the goal fvd).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from flexivid.pipeline.command_line import program_parser, words_of
from flexivid.pipeline.messages import plain_errors

GOALS = ("fidelity", "fvd")
EXAMPLES = """examples:
  python -m flexivid.search                              the newest run, under its own sampling settings
  python -m flexivid.search --checkpoint runs/moving_digits/version_0 --num-videos 64 --max-switches 3
  python -m flexivid.search --num-inference-steps 10 20  two numbers of steps, compared
  python -m flexivid.search --goal fvd                   by distance to real videos, where full compute is not the best
"""


def build_parser() -> ArgumentParser:
    """All options, named as in flexivid.sample; dashes and underscores are the same."""
    parser = program_parser("search", __doc__.splitlines()[0], EXAMPLES)
    add = parser.add_argument
    add("--checkpoint", "--ckpt", help="run folder, .ckpt or exported folder (default: the newest below runs/)")
    add(
        "--goal",
        default="fidelity",
        help="what is best: closest to the sample at full compute (fidelity), or to real videos (fvd, after the errors"
        " that fidelity measures) (default: fidelity)",
    )
    add("--num_videos", type=int, default=16, help="trajectories to measure (default: 16)")
    add("--num_scored", type=int, default=128, help="videos of each schedule for the goal fvd (default: 128)")
    add("--reference", help="folder of real videos for the goal fvd (default: those of the training)")
    add("--max_switches", type=int, help="how often a schedule may change its mode (default: no limit)")
    add("--modes", nargs="+", help="patch modes to measure (default: all the model has)")
    add(
        "--num_inference_steps",
        type=int,
        nargs="+",
        help="numbers of solver steps to measure (default: the model's and fewer)",
    )
    add("--guidance_scale", type=float, help="classifier-free guidance, 1 = none (default: as the model says)")
    add("--guide_mode", help="weak guidance: patch mode of the second branch (default: the step's own)")
    add("--guidance", help="second branch: ordinary, weak or auto (default: ordinary; weak with --guide-mode)")
    add("--guidance_interval", type=float, nargs=2, help="guidance between these times only, 1 = noise (default: 0 1)")
    add("--solver", help="euler, heun, unipc, dpm++ (flow); ddim, ddpm, unipc, dpm++ (DDPM)")
    add("--shift", type=float, help="time shift of flow models; above 1 more steps at high noise")
    add("--batch_size", type=int, default=16, help="videos in one call of the network")
    add("--precision", default="auto", help="auto, fp32, bf16 or fp16")
    add("--device", help="cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    add("--no_ema", action="store_true", help="last weights instead of averaged ones (needs a .ckpt)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments (default: the command line's)."""
    options = build_parser().parse_args(words_of(argv))
    with plain_errors():
        run(options)


def run(options: Namespace) -> None:
    """Load, measure, search, write, report."""
    from flexivid.budget.table import FILE
    from flexivid.budget.units import USUAL_BUDGETS
    from flexivid.pipeline import calibration, checkpoint
    from flexivid.pipeline.devices import pick_device
    from flexivid.pipeline.planning import tables_folder
    from flexivid.pipeline.searched import draw_schedules, searched_lines

    if options.goal not in GOALS:
        raise ValueError(f"got goal {options.goal!r}; expected one of {', '.join(GOALS)}; choose one")
    path = Path(options.checkpoint) if options.checkpoint else checkpoint.newest_run()
    model = checkpoint.load(path, ema=not options.no_ema, device=pick_device(options.device))
    whole = _settings(options, model, None)
    counts = options.num_inference_steps or calibration.fewer_steps(whole.num_inference_steps)
    every = [_settings(options, model, steps) for steps in counts]
    print(f"model {path}: {model.num_parameters / 1e6:.1f} M parameters on {next(model.parameters()).device}")
    folder = tables_folder(path)
    tables = _known(options, model, every, folder) or _measured(options, model, every, folder)
    for line in searched_lines(model, every, tables, USUAL_BUDGETS):
        print(line)
    draw_schedules(model, every, tables, folder / "schedules.png")
    if options.goal == "fvd":
        _score(options, model, every, tables, path)
    picture = folder / ("schedules_fvd.png" if options.goal == "fvd" else "schedules.png")
    print(f"wrote {folder / FILE}, which flexivid.sample uses from now on; look at {picture}")


def _known(options: Namespace, model: Any, every: list, folder: Path) -> list:
    """Errors measured before, for the goal that needs more than them: no one waits for them twice."""
    from flexivid.budget.table import find_table, read_tables
    from flexivid.pipeline.checkpoint import fingerprint
    from flexivid.pipeline.planners import table_settings
    from flexivid.pipeline.sampling import options_for

    if options.goal == "fidelity":
        return []
    name, modes = fingerprint(model), tuple(options_for(model, every[0]))
    kept = [table for table in read_tables(folder) if table.model == name]
    tables = [find_table(kept, name, table_settings(settings)) for settings in every]
    same = [
        table is not None
        and table.options == modes
        and table.max_switches == options.max_switches
        and table.protocol["num_videos"] == options.num_videos
        for table in tables
    ]
    return tables if all(same) else []


def _measured(options: Namespace, model: Any, every: list, folder: Path) -> list:
    """Measure the errors of every option at every call, and keep them."""
    from flexivid.budget.table import FILE, write_tables
    from flexivid.pipeline import calibration
    from flexivid.pipeline.sampling import options_for

    chosen, counts = options_for(model, every[0]), [settings.num_inference_steps for settings in every]
    steps = sum(calibration.num_sample_steps(settings, len(chosen), options.num_videos) for settings in every)
    print(
        f"measuring {len(chosen)} options at every call of {', '.join(map(str, counts))} steps on {options.num_videos}"
        f" videos: {steps} sample steps"
    )
    given = {"num_videos": options.num_videos, "max_switches": options.max_switches, "most_steps": max(counts)}
    with _progress(steps) as on_calls:
        measured = [calibration.calibrate(model, settings, on_calls=on_calls, **given) for settings in every]
    tables = calibration.relate(measured)
    write_tables(folder / FILE, tables)
    return tables


def _score(options: Namespace, model: Any, every: list, tables: list, path: Path) -> None:
    """Hold schedules against real videos, and keep what came of it."""
    from flexivid.budget.planners import scored_front
    from flexivid.budget.table import FILE, write_tables
    from flexivid.budget.units import USUAL_BUDGETS
    from flexivid.pipeline import scoring
    from flexivid.pipeline.planning import tables_folder
    from flexivid.pipeline.searched import draw_schedules, scored_lines

    device = next(model.parameters()).device
    given = {"reference": options.reference, "ema": not options.no_ema, "device": device}
    judge = scoring.find_judge(path, options.num_scored, **given)
    choices = scoring.candidates(model, every, tables, USUAL_BUDGETS)
    steps = scoring.num_sample_steps(choices, options.num_scored)
    print(
        f"sampling {sum(map(len, choices))} schedules, {options.num_scored} videos each, against {len(judge.real)} real"
        f" clips: {steps} sample steps"
    )
    with _progress(steps) as on_calls:
        rows = zip(every, tables, choices, strict=True)
        scored = [scoring.score_schedules(model, *row, judge, on_calls=on_calls) for row in rows]
    folder = tables_folder(path)
    write_tables(folder / FILE, scored)
    for line in scored_lines(model, every, scored, USUAL_BUDGETS):
        print(line)
    draw_schedules(model, every, scored, folder / "schedules_fvd.png", scored_front)


def _settings(options: Namespace, model: Any, steps: int | None) -> Any:
    from flexivid.pipeline.sampling import settings_from

    names = ("guidance_scale", "guidance", "guide_mode", "solver", "shift", "batch_size", "precision")
    given = {name: getattr(options, name) for name in names}
    pairs = {
        name: tuple(value) if (value := getattr(options, name)) else None for name in ("modes", "guidance_interval")
    }
    return settings_from({**given, **pairs, "num_inference_steps": steps}).filled(model)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr; gives the callback."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), "sample steps", TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("measuring", total=total)
        yield lambda count: progress.advance(task, count)


if __name__ == "__main__":
    main()
