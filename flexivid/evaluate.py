"""Measure quality against compute: ``python -m flexivid.evaluate --checkpoint RUN --budget 1 0.5 0.25``.

Parses, calls the rooms, prints. Finished blocks are kept in files: the same command goes on where it was stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from flexivid.runtime import program
from flexivid.sampling.options import OPTIONS, add_sampling, sampling_options

EXAMPLES = """examples:
  python -m flexivid.evaluate --num-videos 256                          the newest run at three budgets
  python -m flexivid.evaluate --checkpoint RUN --budget 1 0.5 0.25 --num-videos 2048 --devices 8
  python -m flexivid.evaluate --checkpoint RUN --reference videos --split val --metric r3d_18
  python -m flexivid.evaluate --checkpoint RUN --given-frames first     samples begin as real clips do
  python -m flexivid.evaluate --generated samples --reference videos    any two folders of videos
  torchrun --nproc-per-node 8 -m flexivid.evaluate --checkpoint RUN     ranks share --output-dir
"""
REFERENCE = ("reference", "layout", "split", "num_reference", "seed")  # options that both requests have
OF_SAMPLES: tuple[str, ...] = ("budget", "schedule", "label", "no_ema", "no_rivals")  # not of two folders
OF_SAMPLES += ("prompts_file", "given_frames", "codec", "text_encoder")
OF_SAMPLES += tuple(name for name in OPTIONS if name != "batch_size")
SPLITS = {"train": "train", "val": "held_out", "held_out": "held_out", "all": "all"}  # their names in results


def build_parser() -> program.ProgramParser:
    """Return the parser with all options, those of sampling named as in ``flexivid.sample``."""
    parser = program.program_parser("evaluate", __doc__.splitlines()[0], EXAMPLES)
    add = parser.add_argument
    program.add_model(add)
    _add_comparison(add)
    add_sampling(add)
    add("--label", nargs="+", help="classes by name or number, in turn (default: all classes in turn)")
    add("--prompts-file", help="texts, one a line, in turn (default: the captions of the real videos)")
    about = "frames of real clips that samples are given: first, last or both, for models with given frames"
    add("--given-frames", help=about)
    program.add_sources(add)
    add("--seed", type=int, default=0, help="video i starts from the noise of seed + i")
    add("--devices", type=int, default=1, help="number of devices, one process each; the result is the same")
    add("--output-dir", help="where files go (default: evaluation/ in the run's folder; here for a shipped model)")
    add("--against", help="an earlier evaluation.json of the same protocol: print by how much each distance differs")
    add("--dry-run", action="store_true", help="print the plans and what they cost, and stop")
    program.add_json(add)
    return parser


def _add_comparison(add: Callable[..., Any]) -> None:
    """Add the options that say which videos are compared, and by which metric."""
    add("--generated", help="folder of videos to measure instead of a checkpoint's; needs --reference")
    about = "fractions of full compute, or draft, balanced, full (default: 1 0.5 0.25)"
    add("--budget", older=["--budgets"], nargs="+", help=about)
    add("--schedule", nargs="+", help="explicit plans instead of budgets, e.g. 12x4x8x8,8x2x4x4")
    add("--num-videos", type=int, help="samples a budget, or clips of --generated (default: 2048)")
    add("--metric", help="i3d, motion, r3d_18, mvit_v2_s, swin3d_t or a file (default: i3d if its weights are there)")
    add("--weights", help="weights of the metric's network (default: where they are usually kept)")
    add("--compat", help="videogpt: I3D as in most PyTorch ports, for comparison with their numbers")
    add("--download", action="store_true", help="fetch the weights of i3d, and stop")
    add("--reference", help="folder or manifest of real videos (default: the data the run was trained on)")
    program.add_layout(add)
    about = "part of the reference and of its captions: train, val or all (default: val where it has enough)"
    add("--split", help=about)
    add("--num-reference", type=int, help="clips of the reference, at most (default: as many as videos)")
    add("--stride", type=int, help="take every so-many-th frame of real clips (default: as trained, or 1)")
    add("--fps", type=float, help="frames a second of real clips, instead of --stride (default: as trained)")
    program.add_size(add, "as trained; for two folders 16 frames, as large as --generated")
    add("--no-rivals", action="store_true", help="no samples of fewer native steps beside those of each budget")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments (default: the command line's)."""
    with program.program_options(build_parser(), argv) as options:
        run(options)


def run(options: Namespace) -> None:
    """Evaluate a checkpoint or two folders, or fetch the weights of I3D."""
    options.height, options.width = program.pixels_of(options)
    if options.split and options.split not in SPLITS:
        raise ValueError(f"got --split {options.split}; expected train, val or all; choose one")
    options.split = SPLITS.get(options.split)
    if options.generated and options.checkpoint:
        raise ValueError("got --generated and --checkpoint; expected one of them; leave the other out")
    if options.download:
        download()
    else:
        (run_pair if options.generated else run_checkpoint)(options)


def run_checkpoint(options: Namespace) -> None:
    """Print the plans, sample and compare all of it or the share of this rank, report."""
    from flexivid.evaluation import ranks as room
    from flexivid.evaluation.run import finish, prepare, progress, work
    from flexivid.runtime.console import polled_bars
    from flexivid.runtime.ranks import devices_of, from_environment, own_device, run_on

    ranks, devices = from_environment(), devices_of(options.devices, options.device)
    request, earlier = _request(options, quiet=not ranks.first), _earlier(options)
    if not ranks.first:
        room.meet(ranks)  # the first one looks at new videos for all
    job = prepare(request, own_device(options.device))
    if earlier:
        earlier.check(job.protocol, [f"{job.task.plans[number].budget:g}" for number in job.task.rows])
    if ranks.first:
        _print_plan(request, job, len(devices) * ranks.size)
        room.meet(ranks)
    if options.dry_run:
        return
    with _resumable(request.output), polled_bars(lambda: progress(job), hidden=not ranks.first) as show:
        if len(devices) > 1:
            run_on(devices, room.share, request, on_poll=show)
        else:
            work(job, *ranks, on_block=show)
        room.meet(ranks)
    if ranks.first:
        _report(options, request, job, earlier, *finish(job))


def download() -> None:
    """Fetch the weights of I3D, or say where they are."""
    from flexivid.data.storage.download import download as fetch
    from flexivid.metrics.extractors.i3d_weights import fetch_weights

    print(f"weights of i3d: {fetch_weights(fetch)}")


def run_pair(options: Namespace) -> None:
    """Compare two folders of videos."""
    from flexivid.evaluation.against import TWO_FOLDERS
    from flexivid.evaluation.compare import PairRequest, compare_pair, pair_progress, prepare_pair
    from flexivid.evaluation.report import aligned, pair_table, write_pair
    from flexivid.evaluation.result import plain
    from flexivid.runtime.console import polled_bars
    from flexivid.runtime.device import pick_device

    if not options.reference:
        raise ValueError("got --generated without --reference; expected two folders; name the real videos")
    size = (options.height, options.width)
    if size.count(None) == 1:
        raise ValueError(f"got --height {size[0]} and --width {size[1]}; expected both or neither; write --size")
    for flag in program.flags_set(build_parser(), options, [*OF_SAMPLES, "devices"]):
        raise ValueError(f"got {flag} with --generated, where it has no effect; expected two folders; leave it out")
    request = PairRequest(
        output=options.output_dir or "evaluation",
        metric=_metric(options),
        num_frames=16 if options.num_frames is None else options.num_frames,
        size=None if None in size else size,
        rate=_rate(options),
        **{name: options[name] for name in ("generated", "num_videos", "batch_size", *REFERENCE)},
    )
    pair = prepare_pair(request, pick_device(options.device))
    print(f"generated {pair.generated.clips}\nreference {pair.real.clips}\nmetric {pair.protocol.label}")
    earlier = _earlier(options)
    if earlier:
        earlier.check(pair.protocol, [TWO_FOLDERS])
    if options.dry_run:
        return
    with _resumable(request.output), polled_bars(lambda: pair_progress(pair)) as show:
        scores = compare_pair(pair, on_block=show)
    files = write_pair(pair, scores, Path(request.output))
    print("\n".join(aligned(pair_table(pair.protocol.label, scores))))
    differences = _print_differences(earlier, pair.protocol, {TWO_FOLDERS: scores})
    _print_files(options, files, {"metric": pair.protocol.label, "scores": plain(scores), **differences})


def _request(options: Namespace, *, quiet: bool) -> Any:
    from flexivid.budget.allowance import number_or_preset
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
        budgets=tuple(map(number_or_preset, options.budget or ("1", "0.5", "0.25"))),
        schedules=tuple(options.schedule or ()),
        metric=_metric(options, quiet=quiet),
        sampling=sampling_options(options),
        size=(options.num_frames, options.height, options.width),
        labels=options.label,
        **{name: options[name] for name in ("prompts_file", "given_frames", "codec", "text_encoder")},
        num_videos=2048 if options.num_videos is None else options.num_videos,
        **{name: options[name] for name in REFERENCE},
        rate=_rate(options),
        ema=not options.no_ema,
        rivals=not options.no_rivals,
    )


def _metric(options: Namespace, *, quiet: bool = False) -> dict[str, Any]:
    from flexivid.metrics.extractors.extractor import choose_metric

    metric, note = choose_metric(options.metric, options.weights, options.compat)
    if note and not quiet:
        print(note)
    return metric


def _rate(options: Namespace) -> dict[str, float]:
    rate = {name: options[name] for name in ("stride", "fps") if options[name] is not None}
    if len(rate) > 1:
        raise ValueError(f"got --stride {options.stride} and --fps {options.fps:g}; expected one; leave the other out")
    return rate


def _earlier(options: Namespace) -> Any:
    from flexivid.evaluation.against import read_earlier

    return read_earlier(options.against) if options.against else None


def _print_differences(earlier: Any, protocol: Any, scores: dict[str, Any]) -> dict[str, Any]:
    """Print by how much new distances are above earlier ones; returns the same for ``--json``."""
    from flexivid.evaluation.report import aligned

    if earlier is None:
        return {}
    differences = earlier.differences(protocol, scores)
    print(f"against {earlier.path}:", *aligned(earlier.table(differences, protocol.label)), sep="\n")
    return {"against": earlier.plain(differences)}


def _print_plan(request: Any, job: Any, num_devices: int) -> None:
    from flexivid.budget.cost import human
    from flexivid.sampling.messages import describe

    task, total = job.task, 0
    device = next(task.model.parameters()).device
    print(f"model {request.checkpoint}: {task.model.num_parameters / 1e6:.1f} M parameters on {device}")
    steps, floor = task.settings.num_inference_steps, task.model.recipe.step_floor
    note = f"step floor {floor}: more native steps made no difference" if floor else "step floor not measured"
    print(f"full compute: {steps} native steps; {note}")
    for plan in task.plans:
        cost = task.settings.schedule_macs(task.model.config, plan.schedule)
        print(describe(plan, task.model, task.settings, len(task.conditions)))
        total += cost * len(task.conditions)
    if task.conditions.source:
        part = "" if request.prompts_file else f" ({job.real.clips.split})"
        print(f"prompts: {task.conditions.source}{part}, in turn, e.g. {task.conditions.prompts[0]!r}")
        if task.conditions.seen:
            print(task.conditions.seen)
    if task.conditions.frames_source:
        print(f"given frames: {task.conditions.frames_source.rpartition(', ')[0]}")
    print(f"reference {job.real.clips}")
    print(f"metric {job.protocol.label}: {task.extractor.num_features} features; {task.extractor.preprocessing}")
    devices = "1 device" if num_devices == 1 else f"{num_devices} devices"
    print(f"in all {human(total)} to generate, on {devices}; files go to {request.output}", flush=True)


def _report(options: Namespace, request: Any, job: Any, earlier: Any, evaluation: Any, samples: Any) -> None:
    from flexivid.evaluation.against import by_budget
    from flexivid.evaluation.report import aligned, legend, table, write_evaluation

    files = write_evaluation(request, job, evaluation, samples)
    print("\n".join([*aligned(table(evaluation)), legend(evaluation)]))
    print(f"area under {evaluation.metric} over log(MACs): {evaluation.fvd_auc:.4g}")
    differences = _print_differences(earlier, evaluation.protocol, by_budget(evaluation))
    _print_files(options, files, {**evaluation.to_json(), **differences})


def _print_files(options: Namespace, files: dict[str, Path], results: dict[str, Any]) -> None:
    print(f"look at {files['page']}; the numbers and their protocol are in {files['json']}")
    program.write_json(options.json, {**results, "files": {kind: str(file) for kind, file in files.items()}})


@contextmanager
def _resumable(folder: str) -> Iterator[None]:
    """Check that a folder can be written to; on Ctrl-C say where the finished work is and how to go on."""
    from flexivid.sampling.sample_folder import Interrupted, prepare_folder

    prepare_folder(folder)
    try:
        yield
    except KeyboardInterrupt:
        text = f"interrupted: what is finished is kept in {folder}/features; the same command goes on from there"
        raise Interrupted(text) from None


if __name__ == "__main__":
    main()
