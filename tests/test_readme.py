"""What the README shows runs, and the numbers of README and docs/results.md are those of the result files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import flexivid
from flexivid.sample import build_parser

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
RESULTS = (ROOT / "docs" / "results.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.S)


def test_planning_and_network_blocks_run() -> None:
    names: dict = {}
    exec(BLOCKS[0], names)
    assert flexivid.budget_of(names["schedule"], names["config"], names["size"]) <= 0.25
    names |= {"x": torch.zeros(1, 16, 2, 8, 8), "time": torch.tensor([0.5]), "labels": torch.tensor([0])}
    small = names["config"].to_dict() | {"width": 32, "depth": 1, "num_heads": 2, "num_classes": 3}
    names["config"] = flexivid.FlexiDiTConfig.from_dict(small)
    exec(BLOCKS[2], names)
    assert names["model"].config.width == 32


def test_the_flags_it_names_exist() -> None:
    known = {option.replace("-", "_") for action in build_parser()._actions for option in action.option_strings}
    shown = re.findall(r"flexivid\.sample[^\n#`]*", README)
    flags = {word for line in shown for word in re.findall(r"--[a-z-]+", line)}
    assert len(flags) >= 5
    assert {flag.replace("-", "_") for flag in flags} <= known


def cells(text: str, first: str) -> list[list[str]]:
    """Rows of the table whose header line starts with ``first``."""
    lines = text[text.index(f"| {first}") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def result(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def intervals(value: Any) -> Iterator[str]:
    """Every distance of a result file with its interval, as the pages write it."""
    if isinstance(value, dict) and {"low", "high"} <= set(value):
        name = next((name for name in ("fvd", "fvd[motion]", "difference") if name in value), None)
        if name:
            numbers = (value[name], value["low"], value["high"])
            for digits in (0, 1):
                yield "{:.{d}f} ({:.{d}f}-{:.{d}f})".format(*numbers, d=digits)
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        yield from intervals(child)


@pytest.mark.parametrize("page", [README, RESULTS], ids=["README", "results"])
def test_files_it_names_exist(page: str) -> None:
    files = re.findall(r"benchmarks/results/[a-z_0-9]+\.(?:json|png)", page)
    assert all((ROOT / file).is_file() for file in files)
    places = [ROOT / "docs" / link if page is RESULTS else ROOT / link for link in re.findall(r"\]\(([^):#]+)\)", page)]
    assert [str(place) for place in places if not place.exists()] == []


@pytest.mark.parametrize("page", [README, RESULTS], ids=["README", "results"])
def test_every_interval_stands_in_a_result_file(page: str) -> None:
    measured = {text for file in (ROOT / "benchmarks/results").glob("*.json") for text in intervals(result(file.stem))}
    quoted = re.findall(r"\d+(?:\.\d)?\s\(\d+(?:\.\d)?-\d+(?:\.\d)?\)", page)
    assert len(quoted) > 10
    assert [text for text in quoted if " ".join(text.split()) not in measured] == []


@pytest.mark.parametrize("page", [README, RESULTS], ids=["README", "results"])
def test_the_table_of_budgets_is_that_of_the_frontiers(page: str) -> None:
    ways = ["staged", "searched_fvd", "fewer_steps"] if page is RESULTS else ["staged", "fewer_steps"]
    files = map("frontier_{}".format, ["shipped_1024", "digits", "digits_nano", "footage"])
    rows: dict[tuple[str, float], str] = {}
    for model, full, budget, *shown in cells(page, "model"):
        if model:
            frontier = result(next(files))
            rows = {(r["way"], r["budget"]): next(text for text in list(intervals(r))[1:]) for r in frontier["rows"]}
            assert full == f"{rows['full', 1.0]}, {frontier['settings']['num_inference_steps']} steps"
        for way, cell in zip(ways, shown, strict=True):
            missing = "less than a step" if way == "fewer_steps" else ""
            assert cell == rows.get((way, float(budget)), missing), (model, budget, way)


def test_the_table_of_seconds_is_that_of_bench_budget() -> None:
    rows = {(row["batch"], row["compiled"], row["budget"]): row for row in result("bench_budget")["rows"]}
    for budget, share, *seconds in cells(RESULTS, "budget | MACs"):
        assert share == f"{rows[16, False, budget]['macs_share']:.1%}"
        columns = [rows[columns] for columns in ((16, False, budget), (1, False, budget), (1, True, budget))]
        assert seconds == [f"{row['seconds']:.3f} ({row['seconds_share']:.1%})" for row in columns]
    for videos in (16, 1):
        row = rows[videos, False, "0.35 of seconds"]
        text = f"{100 * row['seconds_share']:.1f} % for {'one' if videos == 1 else videos}"
        assert re.search(f"{text}( videos)? .{re.escape(row['plan'])}.", " ".join(RESULTS.split()))


def test_the_table_against_diffusers_is_that_of_bench_forward() -> None:
    rows = {f"{row['work']}, {row['dtype']}, {row['kind']}": row["ratio"] for row in result("bench_forward")["rows"]}
    shown = cells(RESULTS, "| DiT")
    assert len(shown) == len(rows)
    for name, *ratios in shown:
        keys = ("diffusers.DiTTransformer2DModel", "diffusers.WanTransformer3DModel")
        assert ratios == [f"{rows[name][key]:.2f}" for key in keys]


def test_the_table_of_features_is_that_of_bench_fvd() -> None:
    rows = result("bench_fvd")["networks"]
    for clips, *rates in cells(RESULTS, "GMAC/s"):
        batch = int(clips.split()[0])
        assert rates == [f"{row['gmacs_a_second']:.0f}" for row in rows if row["batch"] == batch]


def test_the_judge_of_digits_is_quoted_as_measured() -> None:
    real, full, quarter = result("digit_judge")["rows"]
    text = " ".join(RESULTS.split())
    assert f"in {full['accuracy']:.1%}".replace("%", " %") in text
    assert f"in {quarter['accuracy']:.1%} at 0.25".replace("%", " %") in text
    assert f"{100 * full['consistency']:.1f} and {100 * quarter['consistency']:.1f} %" in text
    assert f"real clips: {100 * real['accuracy']:.1f} and {100 * real['consistency']:.1f} %" in text
