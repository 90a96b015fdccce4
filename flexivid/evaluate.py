"""Measure quality against compute: ``python -m flexivid.evaluate --checkpoint RUN --budgets 1 0.5 0.25``.

Parses, calls the pipeline, prints. What is finished is kept: the same command goes on where it was stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from flexivid.runtime.errors import plain_errors
from flexivid.runtime.program import add_layout, program_parser, resolved, words_of
from flexivid.sampling.options import add_sampling, sampling_options

EXAMPLES = """examples:
  python -m flexivid.evaluate --num-videos 256                          the newest run at three budgets
  python -m flexivid.evaluate --checkpoint RUN --budgets 1 0.5 0.25 --num-videos 2048 --devices 8
  python -m flexivid.evaluate --checkpoint RUN --reference videos --split held_out --metric r3d_18
  python -m flexivid.evaluate --generated samples --reference videos    any two folders of videos
  torchrun --nproc-per-node 8 -m flexivid.evaluate --checkpoint RUN     ranks share --output-dir
"""


def build_parser() -> ArgumentParser:
    """All options, those of sampling named as in ``flexivid.sample``; dashes and underscores are the same."""
    parser = program_parser("evaluate", __doc__.splitlines()[0], EXAMPLES)
    _add_what(parser.add_argument)
    _add_sampling(parser.add_argument)
    return parser


def _add_what(add: Callable[..., Any]) -> None:
    add("--checkpoint", "--ckpt", help="run, .ckpt, exported folder or moving_digits (default: newest run, else that)")
    add("--generated", help="folder of videos to measure instead of a checkpoint's; needs --reference")
    add(
        "--budgets",
        "--budget",
        nargs="+",
        help="fractions of full compute, or draft, balanced, full (default: 1 0.5 0.25)",
    )
    add("--schedule", nargs="+", help="explicit plans instead of budgets, e.g. 12x4x8x8,8x2x4x4")
    add("--num_videos", type=int, help="samples a budget, or clips of --generated (default: 2048)")
    add("--metric", help="i3d, motion, r3d_18, mvit_v2_s, swin3d_t or a file (default: i3d if its weights are there)")
    add("--weights", help="weights of the metric's network (default: where they are usually kept)")
    add("--compat", help="videogpt: I3D as in most PyTorch ports, for comparison with their numbers")
    add("--download", action="store_true", help="fetch the weights of i3d, and stop")
    add("--reference", help="folder or manifest of real videos (default: the data the run was trained on)")
    add_layout(add)
    add("--split", help="train, held_out or all of the reference (default: held_out where it has enough clips)")
    add("--num_reference", type=int, help="clips of the reference, at most (default: as many as videos)")
    add("--stride", type=int, help="take every so-many-th frame of real clips (default: as trained, or 1)")
    add("--fps", type=float, help="frames a second of real clips, instead of --stride (default: as trained)")
    add("--num_frames", type=int, help="frames (default: as trained; 16 for two folders)")
    add("--height", type=int, help="rows in pixels (default: as trained, or as --generated)")
    add("--width", type=int, help="columns in pixels (default: likewise)")
    add("--no_rivals", action="store_true", help="no samples of fewer native steps beside those of each budget")
    add("--seed", type=int, default=0, help="video i starts from the noise of seed + i")
    add("--devices", type=int, default=1, help="number of devices, one process each; the result is the same")
    add("--device", help="cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    add("--output_dir", help="where files go (default: evaluation/ in the run's folder; here for a shipped model)")
    add("--dry_run", action="store_true", help="print what would be done and what it costs, and stop")
    add("--json", action="store_true", help="last line of stdout is one JSON object")


def _add_sampling(add: Callable[..., Any]) -> None:
    add("--label", nargs="+", help="classes by name or number, in turn (default: all classes in turn)")
    add_sampling(add)
    add("--no_ema", action="store_true", help="last weights instead of averaged ones (needs a .ckpt)")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments (default: the command line's)."""
    options = build_parser().parse_args(words_of(argv))
    with plain_errors():
        options = resolved(options)
        if options.generated and options.checkpoint:
            raise ValueError("got --generated and --checkpoint; expected one of them; leave the other out")
        if options.download:
            download()
        else:
            (run_pair if options.generated else run)(options)


def run(options: Namespace) -> None:
    """Evaluate a checkpoint: say what will be done, do a share or all of it, report."""
    from flexivid.evaluation import ranks as at
    from flexivid.evaluation.run import finish, prepare, progress, work

    ranks, devices = at.from_environment(), at.devices_of(options.devices, options.device)
    if ranks.size > 1 and len(devices) > 1:
        raise ValueError(f"got --devices {len(devices)} under torchrun; expected one a rank; leave --devices out")
    request = _request(options, quiet=not ranks.first)
    if not ranks.first:
        at.meet(ranks)  # the first one looks at new videos for all
    job = prepare(request, at.own_device(options.device))
    if ranks.first:
        _print_plan(job, len(devices) * ranks.size)
        at.meet(ranks)
    if options.dry_run:
        return
    with _kept(request.output), _bars(lambda: progress(job), hidden=not ranks.first) as show:
        if len(devices) > 1:
            at.work_in_processes(request, devices, on_poll=show)
        else:
            work(job, *ranks, on_block=show)
        at.meet(ranks)
    if ranks.first:
        _report(options, job, *finish(job))


def download() -> None:
    """Fetch the weights of I3D, or say where they are."""
    from flexivid.data.storage.download import download as fetch
    from flexivid.metrics.extractors.i3d_weights import fetch_weights

    print(f"weights of i3d: {fetch_weights(fetch)}")


def run_pair(options: Namespace) -> None:
    """Compare two folders of videos."""
    from flexivid.evaluation.compare import PairRequest, compare_pair, pair_progress, prepare_pair
    from flexivid.evaluation.report import aligned, pair_table, write_pair
    from flexivid.evaluation.result import plain_scores
    from flexivid.runtime.device import pick_device

    if not options.reference:
        raise ValueError("got --generated without --reference; expected two folders; name the real videos")
    size = (options.height, options.width)
    if (options.height is None) != (options.width is None):
        raise ValueError(f"got --height {size[0]} and --width {size[1]}; expected both or neither; add the other")
    if options.devices != 1:
        raise ValueError(f"got --devices {options.devices} for two folders; expected 1; leave it out")
    request = PairRequest(
        generated=options.generated,
        reference=options.reference,
        output=options.output_dir or "evaluation",
        metric=_metric(options),
        num_frames=16 if options.num_frames is None else options.num_frames,
        size=None if options.height is None else size,
        rate=_rate(options),
        num_videos=options.num_videos,
        num_reference=options.num_reference,
        split=options.split,
        layout=options.layout,
        seed=options.seed,
        batch_size=options.batch_size,
    )
    pair = prepare_pair(request, pick_device(options.device))
    print(f"generated {pair.generated.clips}\nreference {pair.real.clips}\nmetric {pair.protocol.label}")
    if options.dry_run:
        return
    with _kept(request.output), _bars(lambda: pair_progress(pair)) as show:
        scores = compare_pair(pair, on_block=show)
    files = write_pair(pair, scores, Path(request.output))
    print("\n".join(aligned(pair_table(pair.protocol.label, scores))))
    _say(options, files, {"metric": pair.protocol.label, "scores": plain_scores(scores)})


def _request(options: Namespace, *, quiet: bool) -> Any:
    from flexivid.budget.planners import number_or_preset
    from flexivid.evaluation.run import Request, run_folder
    from flexivid.model.checkpoint import choose
    from flexivid.model.shipped import is_shipped

    path, note = choose(options.checkpoint)
    if note and not quiet:
        print(note)
    beside = Path() if is_shipped(path) else run_folder(path)
    return Request(
        checkpoint=str(path),
        output=options.output_dir or str(beside / "evaluation"),
        budgets=tuple(map(number_or_preset, options.budgets or ("1", "0.5", "0.25"))),
        schedules=tuple(options.schedule or ()),
        metric=_metric(options, quiet=quiet),
        sampling=sampling_options(options),
        size=(options.num_frames, options.height, options.width),
        labels=options.label,
        num_videos=2048 if options.num_videos is None else options.num_videos,
        seed=options.seed,
        reference=options.reference,
        split=options.split,
        layout=options.layout,
        num_reference=options.num_reference,
        rate=_rate(options),
        ema=not options.no_ema,
        rivals=not options.no_rivals,
    )


def _metric(options: Namespace, *, quiet: bool = False) -> dict[str, Any]:
    from flexivid.evaluation.metric import choose_metric

    metric, note = choose_metric(options.metric, options.weights, options.compat)
    if note and not quiet:
        print(note)
    return metric


def _rate(options: Namespace) -> dict[str, float]:
    given = {name: getattr(options, name) for name in ("stride", "fps") if getattr(options, name) is not None}
    if len(given) > 1:
        raise ValueError(f"got --stride {options.stride} and --fps {options.fps:g}; expected one; leave the other out")
    return given


def _print_plan(job: Any, num_devices: int) -> None:
    from flexivid.budget.cost import human
    from flexivid.budget.schedule import schedule_macs
    from flexivid.sampling.messages import describe

    task, total = job.task, 0
    device = next(task.model.parameters()).device
    print(f"model {job.request.checkpoint}: {task.model.num_parameters / 1e6:.1f} M parameters on {device}")
    steps, floor = task.settings.num_inference_steps, task.model.recipe.get("step_floor")
    known = f"; step floor {floor}: more native steps made no difference" if floor else "; step floor not measured"
    print(f"full compute: {steps} native steps{known}")
    for plan in task.plans:
        cost = schedule_macs(plan.schedule, task.model.config, task.settings.size)
        print(describe(plan, task.model, task.settings, len(task.labels)))
        total += cost * len(task.labels)
    print(f"reference {job.real.clips}")
    print(f"metric {job.protocol.label}: {task.extractor.num_features} features; {task.extractor.preprocessing}")
    devices = "1 device" if num_devices == 1 else f"{num_devices} devices"
    print(f"in all {human(total)} to generate, on {devices}; files go to {job.request.output}", flush=True)


def _report(options: Namespace, job: Any, evaluation: Any, made: Any) -> None:
    from flexivid.evaluation.report import aligned, legend, table, write_evaluation

    files = write_evaluation(job, evaluation, made)
    print("\n".join([*aligned(table(evaluation)), legend(evaluation)]))
    print(f"area under {evaluation.metric} over log(MACs): {evaluation.fvd_auc:.4g}")
    _say(options, files, evaluation.to_json())


def _say(options: Namespace, files: dict[str, Path], result: dict[str, Any]) -> None:
    print(f"look at {files['page']}; the numbers and their protocol are in {files['json']}")
    if options.json:
        print(json.dumps({**result, "files": {kind: str(file) for kind, file in files.items()}}))


@contextmanager
def _kept(folder: str) -> Iterator[None]:
    """Prove that a folder can be written to, and on Ctrl-C say what has become of the work."""
    from flexivid.sampling.sample_folder import Interrupted, prepare_folder

    prepare_folder(folder)
    try:
        yield
    except KeyboardInterrupt:
        text = f"interrupted: what is finished is kept in {folder}/features; the same command goes on from there"
        raise Interrupted(text) from None


@contextmanager
def _bars(look: Callable[[], dict[str, tuple[float, float]]], *, hidden: bool = False) -> Iterator[Callable[[], None]]:
    """Progress bars on stderr; gives the function that brings them up to date."""
    from rich.progress import TaskProgressColumn

    from flexivid.runtime.bars import progress_bars

    with progress_bars(TaskProgressColumn(), hidden=hidden) as progress:
        tasks = {name: progress.add_task(name, total=total) for name, (_, total) in look().items()}

        def show() -> None:
            for name, (done, _) in look().items():
                progress.update(tasks[name], completed=done)

        show()
        yield show
        show()


if __name__ == "__main__":
    main()
