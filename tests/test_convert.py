"""The program around ``flexivid.flexify``: it shows that nothing changed, prints costs, and writes an adapter."""

import json
import subprocess
import sys

import pytest
import torch
from diffusers import WanTransformer3DModel

import flexivid
from flexivid import convert as program
from flexivid.model.checkpoint import save
from flexivid.pretrained import original_checkpoints as plain_checkpoints
from flexivid.pretrained.adapter import load_adapter
from flexivid.pretrained.load import load_transformer
from flexivid.training.distillation.recorded_data import Rows
from tests.pretrained.families import CASES, build
from tests.pretrained.pipelines import PIPELINES
from tests.pretrained.test_original_checkpoints import published


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "wan"
    build(CASES[0]).save_pretrained(folder)
    return str(folder)


def test_it_compares_counts_and_writes(model, tmp_path, capsys) -> None:
    output = str(tmp_path / "modes")
    program.main(
        [model, "--modes", "1x4x4", "2x4x4", "--rank", "2", "--output-dir", output, "--device", "cpu", "--json"]
    )
    lines = capsys.readouterr().out.splitlines()
    told = json.loads(lines[-1])
    assert lines[0] == "native mode, largest absolute difference before and after: 0"
    assert told["difference"] == 0
    assert told["least_budget"] == pytest.approx(told["macs"]["2x4x4"] / told["macs"]["native"], abs=1e-4)
    loaded = load_adapter(build(CASES[0]), output)
    assert sum(p.numel() for p in loaded.flexi.parameters()) == told["added"]


def test_dry_run_reads_the_configuration_only(model, tmp_path, capsys) -> None:
    program.main(
        [model, "--modes", "1x4x4", "--dry-run", "--latent-size", "5", "8", "8", "--output-dir", str(tmp_path / "none")]
    )
    assert "latent 5x8x8" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("dry", [False, True])
def test_a_trained_flexidit(dry, tmp_path, capsys) -> None:
    case = next(case for case in CASES if case.name == "flexidit")
    folder, output = save(build(case), tmp_path / "run"), tmp_path / "modes"
    words = [str(folder), "--modes", "2x4x4", "--rank", "2", "--output-dir", str(output), "--device", "cpu"]
    program.main(words + ["--dry-run"] * dry)
    out = capsys.readouterr().out
    assert "native mode 1x2x2" in out
    assert ("largest absolute difference before and after: 0" in out) is not dry
    assert dry or "2x4x4" in load_adapter(flexivid.load(folder), output).flexi.modes


@pytest.mark.parametrize("kind", ["checkpoint", "folder"])
@pytest.mark.parametrize("dry", [False, True])
def test_original_checkpoints_and_video_dit(kind, dry, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setitem(plain_checkpoints.HEADS, 16, 2)  # of a width that nobody published
    torch.save(published(video=True), tmp_path / "latte.pt")
    where = tmp_path / "latte.pt"
    if kind == "folder":
        load_transformer(where).save_pretrained(tmp_path / "latte")
        where = tmp_path / "latte"
    words = [str(where), "--modes", "1x4x4", "--rank", "2", "--output-dir", str(tmp_path / "modes"), "--device", "cpu"]
    program.main(words + ["--dry-run"] * dry)
    out = capsys.readouterr().out
    assert ("largest absolute difference before and after: 0" in out) != dry
    assert (tmp_path / "modes").exists() != dry
    if not dry:
        assert list(flexivid.flexify(load_transformer(where), tmp_path / "modes").flexi.modes) == ["1x4x4"]


def test_prompts_for_distillation(tmp_path, capsys) -> None:
    pipe = PIPELINES["wan"][0]()
    pipe.save_pretrained(tmp_path / "pipe")
    (tmp_path / "prompts.txt").write_text("a cat\n\na cat walks\n")
    words = [str(tmp_path / "pipe"), "--modes", "1x4x4", "--rank", "2", "--device", "cpu"]
    program.main([*words, "--output-dir", str(tmp_path / "modes"), "--prompts", str(tmp_path / "prompts.txt")])
    assert "2 prompts written to" in capsys.readouterr().out
    assert len(Rows(tmp_path / "modes" / "prompts")) == 2
    model = flexivid.flexify(
        WanTransformer3DModel.from_pretrained(tmp_path / "pipe" / "transformer"), tmp_path / "modes"
    )
    assert list(model.flexi.modes) == ["1x4x4"]
    with pytest.raises(SystemExit):
        program.main([*words, "--prompts", "nowhere.txt", "--output-dir", str(tmp_path / "other")])
    assert "got --prompts nowhere.txt; expected a file" in capsys.readouterr().err


def test_prompts_mean_the_same_in_every_encoding_or_are_refused(tmp_path, capsys) -> None:
    PIPELINES["wan"][0]().save_pretrained(tmp_path / "pipe")
    words = [str(tmp_path / "pipe"), "--modes", "1x4x4", "--rank", "2", "--device", "cpu"]
    file, recorded = tmp_path / "prompts.txt", []
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        file.write_text("a caf\xe9\r\na cat\n", encoding=encoding)
        program.main([*words, "--output-dir", str(tmp_path / encoding), "--prompts", str(file)])
        rows = Rows(tmp_path / encoding / "prompts")
        recorded.append([value for row in range(len(rows)) for value in rows[row].values()])
    for other in recorded[1:]:
        assert all(torch.equal(value, one) for value, one in zip(other, recorded[0], strict=True))
    capsys.readouterr()
    for content, says in (("a caf\xe9".encode("latin-1"), "byte 5 (0xe9, line 1) is not UTF-8"), (b" \n", "is empty")):
        file.write_bytes(content)
        with pytest.raises(SystemExit):
            program.main([*words, "--output-dir", str(tmp_path / "bad"), "--prompts", str(file)])
        assert says in capsys.readouterr().err
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["MODEL", "--modes", "1x1x1"], "expected a whole multiple"),
        (["MODEL", "--modes", "4x4"], "expected FRAMESxROWSxCOLUMNS"),
        (["MODEL", "--modes", "1x4x4", "--precision", "int8"], "got --precision int8"),
        (["no such model", "--modes", "1x4x4"], "which does not exist; expected a folder or a hub id"),
        (["/", "--modes", "1x4x4"], "without config.json"),
        (["MODEL", "--mode", "1x4x4"], "did you mean '--modes'?"),
    ],
)
def test_mistakes_are_one_line(model, capsys, words, says) -> None:
    with pytest.raises(SystemExit) as stop:
        program.main([model if word == "MODEL" else word for word in words] + ["--device", "cpu"])
    assert stop.value.code == 2
    assert says in capsys.readouterr().err


def test_a_model_that_changed_is_not_written(model, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("flexivid.pipelines.report.flexify_and_compare", _spoilt)
    with pytest.raises(SystemExit):
        program.main([model, "--modes", "1x4x4", "--output-dir", str(tmp_path / "none"), "--device", "cpu"])
    assert "differs by 0.5; expected 0; nothing is written" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def _spoilt(model: torch.nn.Module, modes: list, **settings: object) -> float:

    flexivid.flexify(model, modes, **settings)
    return 0.5


def run(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)


def test_flexify_is_an_alias_of_the_program_and_in_python_the_function() -> None:
    helps = [
        run("-m", *words, "--help") for words in (["flexivid.convert"], ["flexivid.flexify"], ["flexivid", "flexify"])
    ]
    assert [done.returncode for done in helps] == [0, 0, 0]
    assert helps[0].stdout == helps[1].stdout == helps[2].stdout
    check = """
import flexivid, importlib
try:
    importlib.import_module("flexivid.flexify")
except ImportError as error:
    print(error)
from flexivid.pretrained.adapter import flexify
assert flexivid.flexify is flexify
"""
    done = run("-c", check)
    assert "write `from flexivid import flexify`" in done.stdout
    assert done.returncode == 0, done.stderr
