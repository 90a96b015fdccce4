"""The command line that all programs share. Imports no torch.

Options are shown with dashes and accepted with underscores too. Older names stay accepted, and are not shown.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from flexivid.runtime.errors import plain_errors, refuse
from flexivid.runtime.files import save_json
from flexivid.runtime.paths import resolve
from flexivid.runtime.start import keep_freed_memory

PATHS = {  # options that name files or folders
    *("checkpoint", "pipeline", "adapter", "model", "weights", "reference", "generated", "path", "config", "prompts"),
    *("output", "output_dir", "json", "fix_manifest", "against"),
    *("codec", "text_encoder", "prompts_file", "image", "last_image", "continue_from"),
}
STDOUT = "-"  # value of --json without a file


class OneLineParser(ArgumentParser):
    """Says in one line what is wrong with arguments or settings."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Exit with status 2."""
        refuse(self, message, ex)


class ProgramParser(OneLineParser):
    """Reads options under their present and older names.

    Example:
        >>> parser = ProgramParser()
        >>> action = parser.add_argument("--num_videos", type=int, older=["--num"])
        >>> [parser.parse_args([name, "4"]).num_videos for name in ("--num-videos", "--num_videos", "--num")]
        [4, 4, 4]
        >>> "--num-videos" in parser.format_help(), "--num " in parser.format_help()
        (True, False)
    """

    def __init__(self, **settings: Any) -> None:
        self.older_names: dict[str, str] = {}
        super().__init__(**settings)

    def add_argument(self, *names: str, older: Sequence[str] = (), **settings: Any) -> argparse.Action:
        """Add an option, as argparse does. ``older`` names are accepted too, and not shown."""
        is_of_library = not isinstance(settings.get("action", ""), str)  # jsonargparse looks for these by name
        shown = names if is_of_library else [_dashed(name) for name in names]
        self.older_names |= {_dashed(name): shown[0] for name in older}
        return super().add_argument(*shown, **settings)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None, **settings: Any) -> Namespace:  # type: ignore[override]
        """Parse the arguments (default: those of the process)."""
        words = sys.argv[1:] if args is None else args
        return super().parse_args([self._present(word) for word in words], namespace, **settings)

    def _present(self, word: str) -> str:
        name, equals, value = word.partition("=")
        return self.older_names.get(_dashed(name), _dashed(name)) + equals + value


def _dashed(name: str) -> str:
    return name.replace("_", "-") if name.startswith("--") else name


def program_parser(program: str, description: str, examples: str) -> ProgramParser:
    """Return a parser without options yet for ``python -m flexivid.PROGRAM``; its help ends with the examples."""
    return ProgramParser(
        prog=f"python -m flexivid.{program}",
        description=description.replace("``", ""),
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


@contextmanager
def program_options(parser: ProgramParser, argv: Sequence[str] | None) -> Iterator[Namespace]:
    """Parse arguments (``None`` = those of the process) and do a program's work, which is the block.

    Errors that users can cause, in either, become one line. Paths in the options are resolved (``runtime.paths``).

    Example:
        >>> parser = ProgramParser()
        >>> action = parser.add_argument("--output-dir")
        >>> with program_options(parser, ["--output_dir", "./2024::trip//"]) as options:
        ...     options.output_dir
        './2024::trip'
    """
    options = parser.parse_args(argv)
    keep_freed_memory()
    with plain_errors():
        for key in sorted(options.keys()):
            value = options[key]
            if key.rpartition(".")[2] in PATHS and value not in (None, STDOUT):
                options[key] = [resolve(path) for path in value] if isinstance(value, list) else resolve(value)
        yield options


def flags_set(parser: ArgumentParser, options: Namespace, names: Iterable[str]) -> list[str]:
    """Return the flags of those options that do not have their default, for programs to refuse."""
    return ["--" + name.replace("_", "-") for name in names if options[name] != parser.get_default(name)]


def add_model(add: Callable[..., Any]) -> None:
    """Add the options that choose a trained model and the device to run it on."""
    about = "run folder, .ckpt, exported folder or moving_digits (default: the newest below runs/, else moving_digits)"
    add("--checkpoint", older=["--ckpt"], help=about)
    add("--no-ema", action="store_true", help="last weights instead of averaged ones (needs a .ckpt)")
    add("--device", help="cpu, cuda, cuda:1, mps (default: a GPU if there is one)")


def add_size(add: Callable[..., Any], default: str = "as trained") -> None:
    """Add the options for the size of videos; ``pixels_of`` reads the sides. ``default`` is part of the help."""
    add("--num-frames", type=int, help=f"frames of a video (default: {default})")
    add("--size", type=int, nargs="+", help=f"height and width in pixels, or one side of a square (default: {default})")
    for name in ("--height", "--width"):  # how programs asked for it before
        add(name, type=int, help=argparse.SUPPRESS)


def pixels_of(options: Namespace) -> tuple[int | None, int | None]:
    """Return the height and width that the options of ``add_size`` ask for, in pixels.

    Example:
        >>> pixels_of(Namespace(size=[64], height=None, width=None))
        (64, 64)
    """
    if options.size is None:
        return options.height, options.width
    if options.height or options.width:
        raise ValueError("got --size with --height or --width; expected --size alone; leave the others out")
    if len(options.size) > 2:
        numbers = " ".join(map(str, options.size))
        raise ValueError(f"got --size {numbers}; expected the side of a square, or height and width; change it")
    return options.size[0], options.size[-1]


def add_sources(add: Callable[..., Any]) -> None:
    """Add the options that say where the codec and the text encoder of a model are."""
    add("--codec", help="folder or hub id of the model's codec (default: as in training)")
    add("--text-encoder", help="folder or hub id of the model's text encoder (default: as in training)")


def add_layout(add: Callable[..., Any]) -> None:
    """Add the option that says how folders of videos are read."""
    about = "what sub-folders of videos are: splits, classes, or flat for neither (default: as in training, or auto)"
    add("--layout", help=about)


def add_files(add: Callable[..., Any]) -> None:
    """Add the options that choose the files of a diffusers model; their names are those of ``ModelFiles``."""
    add("--variant", help="diffusers: files of the weights, e.g. fp16 (default: those without a variant)")
    add("--revision", help="diffusers: branch, tag or commit on the hub (default: its main branch)")
    add("--local-files-only", action="store_true", help="diffusers: read only files that are on this machine")
    add("--use-safetensors", action="store_true", help="diffusers: read weights from safetensors only")


def add_json(add: Callable[..., Any]) -> None:
    """Add ``--json [FILE]``, whose value ``write_json`` takes."""
    about = "write the results as JSON to FILE; without FILE, as the last line of stdout"
    add("--json", nargs="?", const=STDOUT, metavar="FILE", help=about)


def write_json(target: str | None, results: dict[str, Any]) -> None:
    """Write results, plain data, where ``--json`` says: to a file, "-" = as a line on stdout, ``None`` = nowhere.

    Example:
        >>> write_json("-", {"budget": 0.5})
        {"budget": 0.5}
    """
    if target == STDOUT:
        sys.stdout.write(json.dumps(results) + "\n")
    elif target is not None:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        save_json(target, results, indent=1)
