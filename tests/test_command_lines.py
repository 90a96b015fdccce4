"""Command lines: frozen, one name for one thing, dashes or underscores, and no option without an effect.

``python tests/test_command_lines.py`` writes the list of flags anew.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator
from difflib import unified_diff
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from flexivid import convert, dataset, evaluate, sample, search, train
from flexivid.media.write import write_video
from flexivid.model import shipped
from flexivid.runtime.program import ProgramParser
from tests.pretrained.families import CASES, build
from tests.sampling.test_options import OF_SAMPLE, OF_SEARCH, SHARED, flag, outcome

ROOT = Path(__file__).resolve().parents[1]
FLAGS = ROOT / "tests" / "golden" / "flags.txt"
RECIPES = ("conf/train_video.yaml", "conf/distill_wan.yaml")
PARSERS = {name: program.build_parser for name, program in (("sample", sample), ("search", search))}
PARSERS |= {name: program.build_parser for name, program in (("evaluate", evaluate), ("convert", convert))}
PARSERS |= {f"dataset {verb}": lambda verb=verb: dataset.verb_parser(verb) for verb in dataset.VERBS}
OF_EVALUATE = {
    **{"checkpoint": ["other"], "no_ema": [], "device": ["cuda:99"], "generated": ["videos"], "budget": ["0.5"]},
    **{"schedule": ["3x2x4x4,1x1x2x2"], "num_videos": ["3"], "metric": ["r3d_18"], "weights": ["weights.pt"]},
    **{"compat": ["videogpt"], "download": [], "reference": ["other_videos"], "layout": ["flat"], "split": ["val"]},
    **{"num_reference": ["3"], "stride": ["2"], "fps": ["4"], "num_frames": ["2"], "size": ["4"], "height": ["4"]},
    **{"width": ["4"], "no_rivals": [], "label": ["3"], "seed": ["1"], "devices": ["2"], "output_dir": ["elsewhere"]},
    **{"against": ["earlier.json"], "dry_run": [], "json": [], "prompts_file": ["texts.txt"]},
    **{"codec": ["taef2"], "text_encoder": ["t5"], "given_frames": ["first"]},
}
OF_CONVERT = {
    **{"model": ["other"], "modes": ["2x2x2"], "output_dir": ["modes"], "prompts": ["prompts.txt"], "rank": ["2"]},
    **{"skip": [], "shared": [], "detail": [], "precision": ["bf16"], "variant": ["fp16"], "revision": ["main"]},
    **{"local_files_only": []},
    **{"use_safetensors": [], "subfolder": ["transformer_2"], "device": ["cuda:99"], "latent_size": ["4", "8", "8"]},
    **{"text_tokens": ["8"], "dry_run": [], "json": []},
}
CLIPS = {
    **{"path": ["other_videos"], "config": ["recipe.yaml"], "num_frames": ["4"], "size": ["16"], "stride": ["2"]},
    **{"fps": ["4"], "layout": ["flat"], "square_pixels": ["false"], "pictures": []},
}
COLLECTION = {"path": ["other_videos"], "layout": ["flat"]}
VALUES: dict[str, dict[str, list[str]]] = {  # program: option: another value than its default
    "sample": {**SHARED, **OF_SAMPLE},
    "search": {**SHARED, **OF_SEARCH},
    "evaluate": {**SHARED, **OF_EVALUATE},
    "convert": OF_CONVERT,
    "dataset check": {**CLIPS, "full": [], "fix_manifest": ["good.csv"], "json": [], "num_workers": ["1"]},
    "dataset preview": {**CLIPS, "num_videos": ["2"], "split": ["val"], "output_dir": ["elsewhere"]},
    "dataset index": {**COLLECTION, "square_pixels": ["false"], "pictures": [], "num_workers": ["1"]},
    "dataset stats": {
        **{**COLLECTION, "square_pixels": ["false"], "pictures": [], "num_workers": ["1"], "json": []},
        **{"output_dir": ["elsewhere"], "num_colour_frames": ["3"]},
    },
    "dataset shard": {**COLLECTION, "output": ["elsewhere"], "chunk_mib": ["1"]},
    "dataset encode": {
        **{**COLLECTION, "output": ["elsewhere"], "square_pixels": ["false"], "pictures": [], "num_workers": ["1"]},
        **{"codec": ["vae"], "codec_dtype": ["bf16"], "tile": ["64"], "text_encoder": ["t5"], "text_dtype": ["bf16"]},
        **{
            "max_length": ["8"],
            "class_captions": [],
            "allow_missing_captions": [],
            "num_frames": ["4"],
            "size": ["16"],
        },
        **{"stride": ["2"], "fps": ["4"], "windows": ["all"], "clips_per_video": ["1"], "short": ["loop"]},
        **{"kernel": ["area"], "dtype": ["bf16"], "max_bad_fraction": ["0.5"], "device": ["cuda:99"], "devices": ["2"]},
    },
}
POSITIONAL = {"convert": ["model"], "dataset shard": ["path", "output"], "dataset encode": ["path", "output"]}
POSITIONAL |= {f"dataset {verb}": ["path"] for verb in ("check", "preview", "index", "stats")}
REQUIRED = {"convert": ["model", "--modes", "1x4x4"], "dataset shard": ["videos", "shards"]}
REQUIRED |= {"dataset encode": ["videos", "latents", "--codec", "pixel"]}
REQUIRED |= {f"dataset {verb}": ["videos"] for verb in ("check", "preview", "index", "stats")}


def options_of(parser: ProgramParser) -> Iterator[Any]:
    """Options and positional arguments, without help and without what parsing adds."""
    return (action for action in parser._actions if action.dest not in ("help", "print_shtab"))


def name_of(action: Any) -> str:
    return max(action.option_strings or [action.dest], key=len)


def flags_of(parser: ProgramParser) -> list[str]:
    lines = []
    for action in options_of(parser):
        older = [name for name, present in parser.older_names.items() if present in action.option_strings]
        hidden = " (hidden)" if "SUPPRESS" in str(action.help) else ""
        lines.append(name_of(action) + hidden + (f" (older: {', '.join(older)})" if older else ""))
    return sorted(lines)


def training_keys(recipe: str) -> list[str]:
    """Settings of flexivid's own classes; those of Lightning's trainer are not ours to freeze."""
    text, words = io.StringIO(), sys.argv
    with contextlib.redirect_stdout(text), pytest.raises(SystemExit):
        train.main(["fit", "--config", str(ROOT / recipe), "--print_config"])
    sys.argv = words
    settings = yaml.safe_load(text.getvalue())
    sections = ("model", "data") if "class_path" not in settings["data"] else ("model",)
    return sorted(f"--{section}.{key}" for section in sections for key in keys(settings[section]))


def keys(settings: dict[str, Any]) -> Iterator[str]:
    for key, value in settings.items():
        yield from (f"{key}.{inner}" for inner in keys(value)) if isinstance(value, dict) and value else [key]


def all_flags() -> str:
    lines = [f"{program} {line}" for program, build_parser in PARSERS.items() for line in flags_of(build_parser())]
    lines += [f"train {word}" for word in sorted(set(re.findall(r"--[\w-]+", train.HELP)))]
    lines += [f"train fit {key}" for recipe in RECIPES for key in training_keys(recipe)]
    return "\n".join(lines) + "\n"


def test_flags_are_frozen(monkeypatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # which Lightning sets
    before, now = FLAGS.read_text().splitlines(), all_flags().splitlines()
    assert now == before, (
        "\n".join(unified_diff(before, now, "frozen", "now", lineterm="", n=0))
        + "\nA changed flag needs a line in CHANGELOG.md, and its older name stays accepted (older=); then run"
        " `python tests/test_command_lines.py`."
    )


@pytest.mark.parametrize("program", PARSERS)
def test_every_option_is_shown_with_dashes_and_read_in_all_its_spellings(program: str) -> None:
    parser = PARSERS[program]()
    assert re.findall(r"--\w*_\w*", parser.format_help()) == []
    assert {action.dest for action in options_of(parser)} == set(VALUES[program]), "each option needs an entry here"
    for action in options_of(parser):
        if not action.option_strings:
            continue
        older = [name for name, present in parser.older_names.items() if present in action.option_strings]
        spellings = [*action.option_strings, *older, *(name.replace("-", "_") for name in older)]
        spellings += ["--" + action.dest, "--" + action.dest.replace("_", "-")]
        words = VALUES[program][action.dest]
        required = REQUIRED.get(program, [])
        parsed = [parser.parse_args([*required, name, *words]) for name in spellings if not name.startswith("__")]
        assert all(options == parsed[0] for options in parsed), spellings
        assert parsed[0][action.dest] != parser.get_default(action.dest)


def test_one_name_for_one_thing() -> None:
    """An option of several programs takes the same kind of value in all; numbers of steps are several in a search."""
    kinds = defaultdict(set)
    for build_parser in PARSERS.values():
        for action in options_of(build_parser()):
            kinds[action.dest].add((getattr(action, "_typehint", action.type) or str, str(action.nargs)))
    assert {name for name, found in kinds.items() if len(found) > 1} <= {"num_inference_steps", "path"}
    shared = {"budget", "num_videos", "output_dir", "json", "split", "size", "checkpoint", "device", "dry_run", "seed"}
    for name in shared:
        assert sum(name in VALUES[program] for program in PARSERS) > 1, name


def test_json_goes_to_stdout_or_to_a_file(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    build(CASES[0]).save_pretrained("model")
    convert.main([*REQUIRED["convert"], "--dry-run", "--json"])
    line = capsys.readouterr().out.splitlines()[-1]
    convert.main([*REQUIRED["convert"], "--dry-run", "--json", "results/convert.json"])
    assert line not in capsys.readouterr().out
    assert yaml.safe_load(Path("results/convert.json").read_text()) == yaml.safe_load(line)


def call(program: Any, words: list[str], seen: list, capsys) -> tuple:
    """What a program printed, wrote and called, and how it ended."""
    seen.clear()
    before = {path for path in Path().rglob("*") if path.is_file()}
    status = 0
    try:
        program.main(words)
    except SystemExit as stop:
        status = stop.code
    files = {path for path in Path().rglob("*") if path.is_file()} - before
    for path in files:
        path.unlink()
    printed = capsys.readouterr()
    errors = [line for line in printed.err.splitlines() if line.startswith("error:")]
    return status, errors, printed.out, str(seen), sorted(map(str, files))


def check_effects(
    program: Any, name: str, seen: list, capsys, *, base: list[str], exempt: tuple[str, ...] = ()
) -> None:
    """Every option changes what the program does, or is refused."""
    verb = name.split()[1:]
    call(program, [*verb, *base], seen, capsys)  # the first call probes files, and says so
    before = call(program, [*verb, *base], seen, capsys)
    assert before[1] == []
    assert call(program, [*verb, *base], seen, capsys) == before, "not the same twice"
    for option, values in VALUES[name].items():
        positional = POSITIONAL.get(name, [])
        words = list(base)
        if option in positional:
            words[positional.index(option)] = values[0]
        elif flag(option) in words:
            start = words.index(flag(option))
            words[start : start + 2] = [flag(option), *values]
        else:
            words += [flag(option), *values]
        assert call(program, [*verb, *words], seen, capsys) != before, option


@pytest.fixture
def collections(tmp_path, monkeypatch) -> None:
    """Two collections of videos, and a recipe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLEXIVID_CACHE", str(tmp_path.with_name(tmp_path.name + "_cache")))
    for folder, number in (("videos", 6), ("other_videos", 3)):
        for i in range(number):
            frames = np.full((20, 32, 32, 3), 20 * i + number, np.uint8)
            (tmp_path / folder / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
            write_video(tmp_path / folder / "ab"[i % 2] / f"{i}.mp4", frames, 8)
    Image.new("RGB", (32, 32)).save(tmp_path / "videos" / "a" / "cover.png")
    (tmp_path / "recipe.yaml").write_text("data: {num_frames: 3}")


@pytest.fixture
def watched_data(collections, monkeypatch) -> list:
    """What the verbs of ``flexivid.dataset`` hand on: every call goes through."""
    from flexivid.data import encoding
    from flexivid.data.inspection import inspect, preview, stats
    from flexivid.data.sources import shard_writer
    from flexivid.runtime import ranks

    seen: list = []

    def watch(module: Any, name: str, describe: Any) -> None:
        function = getattr(module, name)

        def call_through(*args: Any, **options: Any) -> Any:
            seen.append((name, describe(*args, **options)))
            return function(*args, **options)

        monkeypatch.setattr(module, name, call_through)

    watch(inspect, "find_parts", lambda collection, **options: (collection, options))
    watch(inspect, "inspect", lambda parts, settings, **options: (settings, options["full_workers"]))
    watch(preview, "look", lambda loader, addresses, **options: (loader.dataset.settings, addresses))
    watch(preview, "page", lambda clips, **options: [clip.frames.shape for clip in clips] + [options["settings"]])
    monkeypatch.setattr(stats, "decoded", lambda videos, number, **options: seen.append(number))
    monkeypatch.setattr(stats, "channel_statistics", lambda frames: {})
    monkeypatch.setattr(stats, "write_histograms", lambda file, values: seen.append(file) or file)
    monkeypatch.setattr(encoding, "encode_share", lambda request, device, ranks: seen.append((request, device)))
    monkeypatch.setattr(ranks, "run_on", lambda devices, work, request: seen.append((request, devices)))
    watch(shard_writer, "write_shards", lambda sources, output, **options: (output, options["chunk_bytes"]))
    return seen


@pytest.mark.parametrize("verb", dataset.VERBS)
def test_every_option_of_dataset_has_an_effect(verb: str, watched_data, capsys) -> None:
    base = REQUIRED[f"dataset {verb}"]
    check_effects(dataset, f"dataset {verb}", watched_data, capsys, base=base)


def test_every_option_of_convert_has_an_effect(tmp_path, monkeypatch, capsys) -> None:
    from flexivid.pretrained import load as room

    monkeypatch.chdir(tmp_path)
    for name in ("model", "other"):
        build(CASES[0]).save_pretrained(name)
    seen, load = [], room.load_transformer

    def load_transformer(model: str, *, dtype: Any, empty: bool, files: Any) -> Any:
        seen.append((model, dtype, files))
        return load(model, dtype=dtype, empty=empty)

    monkeypatch.setattr(room, "load_transformer", load_transformer)
    check_effects(convert, "convert", seen, capsys, base=["model", "--modes", "1x4x4", "--device", "cpu"])


@pytest.fixture
def watched_evaluation(collections, monkeypatch) -> list:
    """``flexivid.evaluate`` with stand-ins for the work."""
    from flexivid.evaluation import against, compare, report, result, run
    from flexivid.metrics.extractors import i3d_weights
    from flexivid.runtime import ranks

    seen: list = []
    shutil.copytree(shipped.FOLDER / "moving_digits", "model")
    shutil.copytree(shipped.FOLDER / "moving_digits", "other")
    clips = SimpleNamespace(clips="clips")
    pair = SimpleNamespace(generated=clips, real=clips, protocol=SimpleNamespace(label="fvd"))
    scores = SimpleNamespace(metric="fvd", fvd_auc=1.0, protocol=None, to_json=dict)
    files = {"page": Path("page.html"), "json": Path("evaluation.json")}
    monkeypatch.setattr(run, "prepare", lambda request, device: seen.append((request, device)))
    monkeypatch.setattr(evaluate, "_print_plan", lambda request, job, number: seen.append(number))
    monkeypatch.setattr(run, "work", lambda *args, **options: seen.append("work"))
    monkeypatch.setattr(run, "progress", lambda job: {})
    monkeypatch.setattr(run, "finish", lambda job: (scores, None))
    monkeypatch.setattr(ranks, "run_on", lambda devices, work, request, **options: seen.append(devices))
    monkeypatch.setattr(compare, "prepare_pair", lambda request, device: seen.append((request, device)) or pair)
    monkeypatch.setattr(compare, "compare_pair", lambda pair, **options: seen.append("work") or scores)
    monkeypatch.setattr(compare, "pair_progress", lambda pair: {})
    monkeypatch.setattr(result, "plain", lambda scores: {})
    monkeypatch.setattr(against, "by_budget", lambda evaluation: {})
    for name, value in (("write_evaluation", files), ("write_pair", files), ("table", []), ("pair_table", [])):
        monkeypatch.setattr(report, name, lambda *args, value=value: value)
    monkeypatch.setattr(report, "aligned", lambda rows: [])
    monkeypatch.setattr(report, "legend", lambda evaluation: "")
    monkeypatch.setattr(i3d_weights, "fetch_weights", lambda fetch: seen.append("download"))
    return seen


@pytest.mark.parametrize("base", [["--checkpoint", "model"], ["--generated", "other_videos", "--reference", "videos"]])
def test_every_option_of_evaluate_has_an_effect_or_is_refused(base, watched_evaluation, capsys) -> None:
    base = [*base, "--metric", "motion", "--device", "cpu"]
    check_effects(evaluate, "evaluate", watched_evaluation, capsys, base=base)


def test_options_without_effect_are_refused(watched_evaluation, capsys) -> None:
    two_folders = ["--generated", "videos", "--reference", "other_videos"]
    for name in evaluate.OF_SAMPLES:
        _, _, error = outcome(
            evaluate, [*two_folders, flag(name), *VALUES["evaluate"][name]], watched_evaluation, capsys
        )
        assert f"got {flag(name)} with --generated, where it has no effect" in error
    for name in sample.MODEL_OPTIONS:
        words = ["--pipeline", "wan", flag(name), *VALUES["sample"][name]]
        _, _, error = outcome(sample, words, watched_evaluation, capsys)
        assert f"got {flag(name)} with --pipeline, where it has no effect" in error


if __name__ == "__main__":
    FLAGS.write_text(all_flags())
