"""Look at a collection of videos before training on it: ``python -m flexivid.dataset check my_videos``.

Parses, calls the rooms, prints. A recipe's data section is read as the training program reads it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from flexivid.runtime.errors import plain_errors
from flexivid.runtime.printable import printable
from flexivid.runtime.program import ProgramParser, add_layout, program_parser, resolved, words_of

EXAMPLES = {
    "": """examples:
  python -m flexivid.dataset check my_videos                              what is wrong with which file
  python -m flexivid.dataset check my_videos --fix-manifest good.csv      and a manifest of the others
  python -m flexivid.dataset preview --config conf/train_video.yaml       the first clips of a recipe, to look at
  python -m flexivid.dataset shard my_videos s3://bucket/my_videos        files that stream from anywhere

options of each: python -m flexivid.dataset check --help
""",
    "check": "example: python -m flexivid.dataset check my_videos --num-frames 16 --full --fix-manifest good.csv",
    "preview": "example: python -m flexivid.dataset preview my_videos --config conf/train_video.yaml --num 32",
    "index": "example: python -m flexivid.dataset index my_videos",
    "stats": "example: python -m flexivid.dataset stats my_videos --output-dir stats --json stats/stats.json",
    "shard": "example: python -m flexivid.dataset shard my_videos s3://bucket/my_videos --chunk-mib 128",
}
VERBS = {
    "check": "find files that are bad, too short or there twice; exit status 1 if there are any",
    "preview": "draw the clips that a recipe trains on, as a PNG and as a page",
    "index": "look at every video once, and keep what was found",
    "stats": "draw and print how long, large and fast the videos are, and the mean of their colours",
    "shard": "copy videos into a few large files that stream from a disk or a bucket",
}


def build_parser() -> ArgumentParser:
    """All verbs and their options; dashes and underscores are the same."""
    verbs = {verb: program_parser(f"dataset {verb}", text, EXAMPLES[verb]) for verb, text in VERBS.items()}
    for verb in ("check", "preview"):
        add = verbs[verb].add_argument
        add("path", nargs="?", help="folder or manifest (default: data.root of the recipe)")
        add("--config", "-c", action="append", help="a recipe; its data section counts; later ones override")
    for verb in ("index", "stats", "shard"):
        verbs[verb].add_argument("path", help="folder or manifest of videos")
    for name, kind, text in (
        ("num_frames", int, "frames of a clip"),
        ("stride", int, "distance of its frames in source frames"),
        ("fps", float, "frames a second of a clip, instead of a stride"),
    ):
        verbs["check"].add_argument(f"--{name}", type=kind, help=f"{text} (default: the recipe's)")
    verbs["check"].add_argument("--size", type=int, nargs="+", help="side of a clip, or height and width")
    for verb in ("check", "index", "stats"):
        text = "whether pixels that are not square are made so, as players do (default: true, or the recipe's)"
        verbs[verb].add_argument("--square_pixels", type=bool, help=text)
    verbs["check"].add_argument("--full", action="store_true", help="decode every frame instead of only looking")
    verbs["check"].add_argument("--fix_manifest", help="write the files without fault to this .csv, .jsonl or .parquet")
    verbs["preview"].add_argument("--num", type=int, default=16, help="clips (default: 16)")
    verbs["stats"].add_argument("--num", type=int, default=256, help="frames for the colours (default: 256)")
    for verb in ("preview", "stats"):
        verbs[verb].add_argument("--output_dir", default=verb, help=f"where files go (default: {verb})")
    for verb in VERBS:
        add_layout(verbs[verb].add_argument)
    for verb in ("check", "stats"):
        verbs[verb].add_argument("--json", help="write everything that was found to this file")
    for verb in ("check", "index", "stats"):
        verbs[verb].add_argument("--num_workers", type=int, help="processes (default: one a core)")
    verbs["shard"].add_argument("output", help="new folder, or an address such as s3://bucket/name")
    verbs["shard"].add_argument("--chunk_mib", type=int, default=64, help="size of the files (default: 64)")
    parser = program_parser("dataset", __doc__.splitlines()[0], EXAMPLES[""])
    subcommands = parser.add_subcommands(dest="verb")
    for verb, subparser in verbs.items():
        subcommands.add_subcommand(verb, subparser, help=VERBS[verb])
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments (default: the command line's)."""
    words = words_of(argv) or ["--help"]
    options = build_parser().parse_args(words)
    run = {"check": check, "preview": preview, "index": index, "stats": stats, "shard": shard}[options.verb]
    with plain_errors():
        run(resolved(options[options.verb]))


def check(options: Namespace) -> None:
    """Print what is wrong and what there is."""
    from flexivid.data.inspection.inspect import find_parts, inspect
    from flexivid.data.inspection.report import refuse_ending, write_manifest
    from flexivid.data.sources.leftovers import LeftOutWarning
    from flexivid.data.workers.pool import num_cores
    from flexivid.runtime.console import step_bars

    if options.fix_manifest:
        refuse_ending(options.fix_manifest)
    data = _recipe(options.config, options.path, _given(options))
    pixels, workers = data.settings.square_pixels, options.num_workers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LeftOutWarning)  # the report has it
        parts = find_parts(data.collection, num_workers=workers, decoder=data.decoder, square_pixels=pixels)
    workers = (options.num_workers or num_cores()) if options.full else 0
    with step_bars() as on_step:
        reports = inspect(parts, data.settings, buckets=data.buckets, full_workers=workers, on_step=on_step)
    for name, report in reports.items():
        _print_report(name, report)
    print(f"a clip: {_described(data)}")
    if options.json:
        _write_json(options.json, {name: report.to_json() for name, report in reports.items()})
    if options.fix_manifest:
        file, index = options.fix_manifest, parts["train"].found
        left_out = [fault.path for fault in reports["train"].faults]
        number = write_manifest(file, index.videos, class_names=index.class_names, leave_out=left_out)
        print(f"{number} videos without fault are listed in {file}")
    raise SystemExit(0 if all(report.is_clean for report in reports.values()) else 1)


def _print_report(name: str, report: Any) -> None:
    """Print what is wrong with a part of a collection, what there is, and last a line that sums up."""
    from flexivid.runtime.console import print_table

    print_table(["file", "fault", "reason"], [(fault.path, fault.kind, fault.reason) for fault in report.faults])
    print_table(["frame rate varies: take frames by fps for even motion"], [[path] for path in report.variable_rate])
    print_table(["file", "what it says about its display"], list(report.displays.items()))
    for title in ("classes", "sizes", "durations", "codecs", "decoders"):
        print_table([title, "videos"], [(key, str(count)) for key, count in getattr(report, title).items()])
    print_table(["not used"], [[note] for note in report.notes])
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.num_faults.items()) or "none"
    print(
        f"{name}: {report.num_videos} videos that can be decoded, {report.num_frames} frames, {report.hours:g} hours;"
        f" {report.num_clips} clips in an epoch; faults: {kinds}"
    )


def preview(options: Namespace) -> None:
    """Draw the first clips of the training batches."""
    from flexivid.data.inspection.preview import contact_sheet, look, page

    if options.num < 1:
        raise ValueError(f"got --num {options.num}; expected at least 1; raise it")
    data = _recipe(options.config, options.path, _given(options))
    data.setup()
    loader = data.train_dataloader()
    addresses = _first_addresses(loader, options.num)
    clips = list(look(loader, addresses, class_names=data.class_names))
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    contact_sheet(clips).save(folder / "clips.png")
    skipped = ", ".join(f"{count} {cause}" for cause, count in data.skipped.items())
    settings = {"collection": data.root, "a clip": _described(data), "clips of an epoch": data.num_clips}
    settings |= {"left out": skipped, "seed": data.settings.seed}
    text = page(clips, title="The first clips of training", settings=settings)
    (folder / "clips.html").write_text(text, encoding="utf-8")
    data.teardown()
    for clip in clips:
        print(printable(clip.title))
    print(f"look at {folder / 'clips.png'} and {folder / 'clips.html'}")


def index(options: Namespace) -> None:
    """Look at what is new, and say what is known."""
    for name, (found, num_probed) in _parts(options).items():
        total = len(found.videos) + len(found.bad)
        print(f"{name}: {len(found.videos)} videos and {len(found.bad)} bad files in {found.path}")
        print(f"  {num_probed} files looked at now, {total - num_probed} rows known before")


def stats(options: Namespace) -> None:
    """Print and draw the numbers of a collection."""
    from flexivid.data.inspection import stats as room
    from flexivid.data.workers.pool import DecodePool, num_cores
    from flexivid.runtime.console import print_table

    videos = _parts(options)["train"].found.videos
    if len(videos) == 0:
        raise ValueError(f"got no video that can be decoded in {options.path}; expected some; run check to see why")
    values = room.quantities(videos)
    numbers: dict[str, Any] = {name: room.summary(column) for name, column in values.items()}
    with DecodePool(options.num_workers or num_cores()) as pool:
        colours = room.channel_statistics(room.decoded(videos, options.num, pool=pool))
    print_table(["", "unit", *numbers["frames"]], _stat_rows(numbers, room.QUANTITIES))
    for name, channels in colours.items():
        print(f"{name} of red, green, blue in [0, 1]: {', '.join(f'{value:.4f}' for value in channels)}")
    file = room.write_histograms(Path(options.output_dir) / "stats.png", values)
    print(f"look at {file}; {len(videos)} videos that can be decoded")
    if options.json:
        _write_json(options.json, {"num_videos": len(videos), **numbers, "colour": colours})


def shard(options: Namespace) -> None:
    """Copy the videos that can be decoded into shards."""
    from flexivid.data.sources.shard_writer import sources_of, write_shards

    parts = _parts(options)
    for name, (found, _) in parts.items():
        output = options.output if len(parts) == 1 else f"{options.output.rstrip('/')}/{name.replace(' ', '_')}"
        size = options.chunk_mib << 20
        done = write_shards(sources_of(found.videos), output, chunk_bytes=size, class_names=found.class_names)
        print(f"{done.num_videos} videos in {done.num_chunks} files, {done.num_bytes / 2**20:.1f} MiB, in {output}")
        for path, reason in [*found.bad, *done.bad]:
            print(printable(f"  left out: {path}: {reason}"))


def _recipe(files: Sequence[str] | None, root: str | None, overrides: dict[str, Any]) -> Any:
    """The data module of a recipe, made by the rules of the training program."""
    import yaml

    from flexivid.data.lists.text import read_text
    from flexivid.data.module import VideoDataModule

    section: dict[str, Any] = {}
    seed: Any = None
    for file in files or ():
        content = yaml.safe_load(read_text(file))
        content = content if isinstance(content, dict) else {}
        section |= content.get("data") or {}
        seed = content.get("seed_everything", seed)
    if section.get("seed") is None and not isinstance(seed, bool):  # true is a random one
        section["seed"] = seed
    section |= overrides | ({"root": root} if root else {})
    parser = ProgramParser(prog="python -m flexivid.dataset")
    parser.add_class_arguments(VideoDataModule, "data")
    return VideoDataModule(**parser.parse_object({"data": section}).data.as_dict())


def _parts(options: Namespace) -> Any:
    """The videos that a verb without a recipe is given: their parts, as ``inspection.find_parts`` finds them."""
    from flexivid.data.inspection.inspect import find_parts
    from flexivid.data.sources.layout import Collection

    collection = Collection(options.path, options.layout or "auto")
    square_pixels = options.get("square_pixels") is not False
    return find_parts(collection, num_workers=options.get("num_workers"), square_pixels=square_pixels)


def _given(options: Namespace) -> dict[str, Any]:
    """The options that override the recipe, under their names there."""
    names = ("num_frames", "stride", "fps", "size", "square_pixels", "layout")
    given = {name: getattr(options, name, None) for name in names}
    if given["size"] is not None and len(given["size"]) == 1:
        given["size"] = given["size"][0]
    return {name: value for name, value in given.items() if value is not None}


def _first_addresses(loader: Any, count: int) -> list[tuple[int, int]]:
    """Where the sampler of training begins."""
    from itertools import chain, islice

    return list(islice(chain.from_iterable(loader.batches), count))


def _described(data: Any) -> str:
    """The settings of clips in a line."""
    settings = data.settings
    rate = f"stride {settings.stride}" if settings.fps is None else f"{settings.fps:g} fps"
    height, width = settings.size
    shapes = [f"{length} frames of {w}x{h}" for length, h, w in data.buckets or [(settings.num_frames, height, width)]]
    return f"{' or '.join(shapes)}, {rate}, short videos: {settings.short}, windows: {settings.windows}"


def _stat_rows(numbers: dict[str, Any], units: dict[str, str]) -> list[list[str]]:
    return [[name, unit, *(f"{value:.6g}" for value in numbers[name].values())] for name, unit in units.items()]


def _write_json(path: str, content: dict[str, Any]) -> None:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
