"""Look at a collection of videos before training on it: ``python -m flexivid.dataset check my_videos``.

Parses, calls the rooms, prints. A recipe's data section is read as the training program reads it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from flexivid.data.encode_request import ENCODE_EXAMPLES, add_encode
from flexivid.runtime.printable import printable
from flexivid.runtime.program import ProgramParser, add_json, add_layout, program_options, program_parser, write_json

EXAMPLES = {
    "": """examples:
  python -m flexivid.dataset check my_videos                              what is wrong with which file
  python -m flexivid.dataset check my_videos --fix-manifest good.csv      and a manifest of the others
  python -m flexivid.dataset preview --config conf/train_video.yaml       the first clips of a recipe, to look at
  python -m flexivid.dataset shard my_videos s3://bucket/my_videos        files that stream from anywhere
  python -m flexivid.dataset encode my_videos my_latents --codec my_vae   latents to train on, coded once

options of each: python -m flexivid.dataset check --help
""",
    "check": "example: python -m flexivid.dataset check my_videos --num-frames 16 --full --fix-manifest good.csv",
    "preview": "example: python -m flexivid.dataset preview my_videos --size 64 --num-videos 32",
    "index": "example: python -m flexivid.dataset index my_videos",
    "stats": "example: python -m flexivid.dataset stats my_videos --output-dir stats --json stats/stats.json",
    "encode": ENCODE_EXAMPLES,
    "shard": "example: python -m flexivid.dataset shard my_videos s3://bucket/my_videos --chunk-mib 128",
}
VERBS = {
    "check": "find files that are bad, too short or there twice; exit status 1 if there are any",
    "preview": "draw the clips that a recipe trains on, as a PNG and as a page",
    "index": "probe every video once, and store what training must know of it",
    "stats": "draw and print how long, large and fast the videos are, and the mean of their colours",
    "encode": "code clips and captions once, to train on them without an autoencoder or a text encoder",
    "shard": "copy videos into a few large files that stream from a disk or a bucket",
}


def build_parser() -> ProgramParser:
    """Return the parser with all verbs and their options."""
    parser = program_parser("dataset", __doc__.splitlines()[0], EXAMPLES[""])
    subcommands = parser.add_subcommands(dest="verb")
    for verb, about in VERBS.items():
        subcommands.add_subcommand(verb, verb_parser(verb), help=about)
    return parser


def verb_parser(verb: str) -> ProgramParser:
    """Return the parser of one verb."""
    parser = program_parser(f"dataset {verb}", VERBS[verb], EXAMPLES[verb])
    if verb in ("check", "preview"):
        _add_clips(parser.add_argument)
    else:
        parser.add_argument("path", help="folder or manifest of videos")
    _add_options(parser.add_argument, verb)
    return parser


def _add_clips(add: Callable[..., Any]) -> None:
    """Add the options that say what a clip is; they override the recipe."""
    add("path", nargs="?", help="folder or manifest (default: data.root of the recipe)")
    add("--config", "-c", action="append", help="a recipe, of which the data section is read; later ones override")
    add("--num-frames", type=int, help="frames of a clip (default: the recipe's)")
    about = "height and width in pixels, or one side of a square (default: the recipe's)"
    add("--size", type=int, nargs="+", help=about)
    add("--stride", type=int, help="take every so-many-th frame of the source (default: the recipe's)")
    add("--fps", type=float, help="frames a second of a clip, instead of --stride (default: the recipe's)")


def _add_options(add: Callable[..., Any], verb: str) -> None:
    """Add the options of a verb that do not describe clips."""
    add_layout(add)
    if verb != "shard":
        about = "make pixels that are not square square, as players do (default: true, or the recipe's)"
        add("--square-pixels", type=bool, help=about)
        about = "each picture is a video of one frame (default: false, or the recipe's)"
        add("--pictures", action="store_true", default=None, help=about)
    if verb in ("check", "index", "stats", "encode"):
        add("--num-workers", type=int, help="processes (default: one a core)")
    if verb in ("check", "stats"):
        add_json(add)
    if verb in ("preview", "stats"):
        add("--output-dir", default=verb, help=f"where files go (default: {verb})")
    if verb == "check":
        add("--full", action="store_true", help="decode every frame instead of only probing the files")
        add("--fix-manifest", help="write the files without fault to this .csv, .jsonl or .parquet")
    elif verb == "preview":
        add("--num-videos", older=["--num"], type=int, default=16, help="clips to draw (default: 16)")
        add("--split", default="train", help="clips of training or of validation: train or val (default: train)")
    elif verb == "stats":
        about = "frames that the colours are measured on (default: 256)"
        add("--num-colour-frames", older=["--num"], type=int, default=256, help=about)
    elif verb == "encode":
        add_encode(add)
    elif verb == "shard":
        add("output", help="new folder, or an address such as s3://bucket/name")
        add("--chunk-mib", type=int, default=64, help="size of the files in MiB (default: 64)")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments (default: the command line's)."""
    words = (sys.argv[1:] if argv is None else argv) or ["--help"]
    runs = {"check": check, "preview": preview, "index": index, "stats": stats, "shard": shard, "encode": encode}
    with program_options(build_parser(), words) as options:
        runs[options.verb](options[options.verb])


def check(options: Namespace) -> None:
    """Print the faults and the contents of a collection."""
    from flexivid.data.inspection import encoded
    from flexivid.data.inspection.inspect import find_parts, inspect
    from flexivid.data.inspection.recipe import data_module_of, described, overrides_of
    from flexivid.data.inspection.report import refuse_ending, write_manifest
    from flexivid.data.sources.leftovers import LeftOutWarning
    from flexivid.data.workers.pool import num_cores
    from flexivid.runtime.console import step_bars

    if options.fix_manifest:
        refuse_ending(options.fix_manifest)
    data = data_module_of(options.config, options.path, overrides_of(options))
    if data.encoded:
        lines, is_clean = encoded.report(data.encoded)
        print("\n".join(lines))
        raise SystemExit(0 if is_clean else 1)
    pixels, workers = data.settings.square_pixels, options.num_workers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LeftOutWarning)  # the report has it
        parts = find_parts(data.collection, num_workers=workers, decoder=data.decoder, square_pixels=pixels)
    workers = (options.num_workers or num_cores()) if options.full else 0
    with step_bars() as on_step:
        reports = inspect(parts, data.settings, buckets=data.buckets, full_workers=workers, on_step=on_step)
    for name, report in reports.items():
        _print_report(name, report)
    print(f"a clip: {described(data)}")
    write_json(options.json, {name: report.to_json() for name, report in reports.items()})
    if options.fix_manifest:
        file, index = options.fix_manifest, parts["train"]
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
    """Draw the first clips of the batches of training or validation."""
    from flexivid.data.inspection.encoded import look_decoded
    from flexivid.data.inspection.preview import look, write_preview
    from flexivid.data.inspection.recipe import data_module_of, described, overrides_of

    if options.num_videos < 1:
        raise ValueError(f"got --num-videos {options.num_videos}; expected at least 1; raise it")
    if options.split not in ("train", "val"):
        raise ValueError(f"got --split {options.split}; expected train or val; choose one")
    data = data_module_of(options.config, options.path, overrides_of(options))
    settings: dict[str, Any] = {"collection": data.root, "a clip": described(data)}
    if data.encoded:
        clips = list(look_decoded(data.encoded, options.split, options.num_videos))
        title = f"Clips of {options.split}, decoded"
    else:
        data.setup()
        loader: Any = data.train_loader(None) if options.split == "train" else data.val_dataloader()
        if not len(loader):
            raise ValueError(
                f"got --split val of {data.root}, which has too few videos for it; expected train; change it"
            )
        addresses = list(islice(chain.from_iterable(loader.batches), options.num_videos))
        clips = list(look(loader, addresses, class_names=data.class_names))
        skipped = ", ".join(f"{count} {cause}" for cause, count in data.skipped.items())
        number = data.num_clips if options.split == "train" else min(data.val_clips, len(loader.dataset))
        settings |= {"clips of an epoch": number, "left out": skipped, "seed": data.settings.seed}
        title = f"The first clips of {options.split}"
    files = write_preview(Path(options.output_dir), clips, title=title, settings=settings)
    data.teardown()
    for clip in clips:
        print(printable(clip.title))
    print(f"look at {files[0]} and {files[1]}")


def index(options: Namespace) -> None:
    """Probe the files that are new, and print how many there are."""
    for name, table in _parts(options).items():
        total = len(table.videos) + len(table.bad)
        print(f"{name}: {len(table.videos)} videos and {len(table.bad)} bad files in {table.path}")
        print(f"  {table.num_probed} files looked at now, {total - table.num_probed} rows known before")


def stats(options: Namespace) -> None:
    """Print and draw the numbers of a collection."""
    from flexivid.data.inspection import stats as room
    from flexivid.data.workers.pool import DecodePool, num_cores
    from flexivid.runtime.console import print_table

    videos = _parts(options)["train"].videos
    if len(videos) == 0:
        raise ValueError(f"got no video that can be decoded in {options.path}; expected some; run check to see why")
    values = room.quantities(videos)
    numbers: dict[str, Any] = {name: room.summary(column) for name, column in values.items()}
    with DecodePool(options.num_workers or num_cores()) as pool:
        colours = room.channel_statistics(room.decoded(videos, options.num_colour_frames, pool=pool))
    rows = [[name, unit, *(f"{x:.6g}" for x in numbers[name].values())] for name, unit in room.QUANTITIES.items()]
    print_table(["", "unit", *numbers["frames"]], rows)
    for name, channels in colours.items():
        print(f"{name} of red, green, blue in [0, 1]: {', '.join(f'{value:.4f}' for value in channels)}")
    file = room.write_histograms(Path(options.output_dir) / "stats.png", values)
    print(f"look at {file}; {len(videos)} videos that can be decoded")
    write_json(options.json, {"num_videos": len(videos), **numbers, "colour": colours})


def shard(options: Namespace) -> None:
    """Copy the videos that can be decoded into shards."""
    from flexivid.data.sources.shard_writer import sources_of, write_shards

    parts = _parts(options)
    for name, table in parts.items():
        output = options.output if len(parts) == 1 else f"{options.output.rstrip('/')}/{name.replace(' ', '_')}"
        size = options.chunk_mib << 20
        shards = write_shards(sources_of(table.videos), output, chunk_bytes=size, class_names=table.class_names)
        mib = shards.num_bytes / 2**20
        print(f"{shards.num_videos} videos in {shards.num_chunks} files, {mib:.1f} MiB, in {output}")
        for path, reason in [*table.bad, *shards.bad]:
            print(printable(f"  left out: {path}: {reason}"))


def encode(options: Namespace) -> None:
    """Code clips and captions into a folder to train on."""
    from flexivid.data.encode_request import request_of
    from flexivid.data.encoding import encode_share
    from flexivid.runtime.ranks import devices_of, from_environment, own_device, run_on

    request, ranks = request_of(options), from_environment()
    devices = devices_of(options.devices, options.device)
    if len(devices) > 1:
        run_on(devices, encode_share, request)
    else:
        encode_share(request, own_device(options.device), ranks)


def _parts(options: Namespace) -> Any:
    """Find the parts of a collection for a verb without a recipe: see ``inspection.find_parts``."""
    from flexivid.data.encoded.folder import is_encoded
    from flexivid.data.inspection.inspect import find_parts
    from flexivid.data.sources.layout import Collection

    if is_encoded(options.path):
        raise ValueError(f"got {options.path}, which holds encoded clips; expected videos; name those, or run check")
    collection = Collection(options.path, options.layout or "auto", bool(options.get("pictures")))
    square_pixels = options.get("square_pixels") is not False
    return find_parts(collection, num_workers=options.get("num_workers"), square_pixels=square_pixels)


if __name__ == "__main__":
    main()
