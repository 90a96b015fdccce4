"""``flexivid.sample --pipeline`` makes videos at several budgets with a pipeline from disk; mistakes are one line."""

import json
import shutil

import pytest
import torch
from diffusers import WanTransformer3DModel

from flexivid.pipelines.sample import load_pipeline
from flexivid.pretrained.adapter import save_adapter
from flexivid.pretrained.flexify import flexify
from flexivid.sample import main
from tests.pretrained.families import disturb
from tests.pretrained.pipelines import PIPELINES


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wan")
    pipe = PIPELINES["wan"][0]()
    pipe.save_pretrained(folder / "pipe")
    disturb(flexify(pipe.transformer, ["1x4x4", "2x4x4"], rank=2))
    return str(folder / "pipe"), str(save_adapter(pipe.transformer, folder / "adapter"))


def words(folders, *more):
    size = ("--height", "32", "--width", "48", "--num-frames", "5", "--num-inference-steps", "3", "--precision", "fp32")
    return ["--pipeline", folders[0], "--adapter", folders[1], "--prompt", "a cat", *size, *more]


@pytest.mark.slow
def test_two_budgets_side_by_side(folders, tmp_path, capsys) -> None:
    main(words(folders, "--budget", "1", "0.8", "--output-dir", str(tmp_path), "--device", "cpu", "--json"))
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    full, less = told["samples"]
    assert full["plan"] == "3 of native"
    assert full["cost"] == 1
    assert less["cost"] <= 0.8
    assert "2x4x4" in less["plan"]
    assert {path.suffix for path in tmp_path.iterdir()} == {".mp4", ".png"}
    assert len(list(tmp_path.glob("000000*.mp4"))) == 2


def never(
    self, hidden_states, timestep, encoder_hidden_states, encoder_hidden_states_image=None, return_dict=True, **others
):
    pytest.fail("the network was called")


def test_a_dry_run_plans_and_calls_no_network(folders, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(WanTransformer3DModel, "forward", never)
    where = ("--output-dir", str(tmp_path / "none"), "--device", "cpu")
    main(words(folders, "--budget", "1", "0.8", *where, "--num-videos", "2", "--dry-run", "--json", "--merge-lora"))
    *lines, told = capsys.readouterr().out.splitlines()
    assert lines[-3].startswith("LoRA merged into copies: ")
    assert lines[-2].startswith("budget 1: 3 steps, 3 of native; ")
    assert lines[-1].endswith("; 2 videos")
    assert lines[-1].startswith("budget 0.8: ")
    assert "x4x4" in lines[-1]
    assert [plan["budget"] for plan in json.loads(told)["plans"]] == [1.0, 0.8]
    assert not (tmp_path / "none").exists()
    main(
        words(
            folders,
            "--budget",
            "0.8",
            *where,
            "--guidance-scale",
            "4",
            "--guide-mode",
            "2x4x4",
            "--planner",
            "weak_first",
            "--dry-run",
        )
    )
    line = capsys.readouterr().out.splitlines()[-1]
    assert "of native+2x4x4" in line
    assert "branch" not in line
    main(words(folders, "--budget", "0.8", *where, "--planner", "staged", "--dry-run"))
    assert capsys.readouterr().out.splitlines()[-1].startswith(lines[-1].split(";")[0])  # the default
    main(words(folders, "--budget", "0.8", *where, "--planner", "weak_last", "--dry-run"))
    assert capsys.readouterr().out.splitlines()[-1].startswith("budget 0.8: 3 steps, 2 of 1x4x4, 1 of 2x4x4; ")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--label", "3"], "got --label with --pipeline"),
        (["--budget", "draft"], "got --budget draft with --pipeline; expected a fraction"),
        (["--precision", "int8"], "got precision 'int8'"),
        (["--pipeline", "nowhere/at/all"], "got pipeline nowhere/at/all, which cannot be loaded"),
        (["--adapter", "nowhere"], "expected an adapter folder"),
        (
            ["--planner", "searched"],
            "got planner 'searched' for a pipeline; expected one of weak_first, weak_last",
        ),
        (["--solver", "euler"], "got --solver with --pipeline"),
        (["--weak-guidance-scale", "1.5"], "got --weak-guidance-scale with --pipeline"),
    ],
)
def test_mistakes_are_one_line(folders, tmp_path, capsys, change, says) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words(folders, "--output-dir", str(tmp_path), "--device", "cpu", *change))
    assert stop.value.code == 2
    assert says in capsys.readouterr().err


def test_options_of_a_pipeline_need_one(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--adapter", "modes"])
    assert "got --adapter without --pipeline" in capsys.readouterr().err


def test_a_missing_text_encoder_is_named(folders, tmp_path) -> None:
    shutil.copytree(folders[0], tmp_path / "pipe")
    index = json.loads((tmp_path / "pipe" / "model_index.json").read_text())
    (tmp_path / "pipe" / "model_index.json").write_text(json.dumps(index | {"text_encoder": [None, None]}))
    with pytest.raises(ValueError, match="text_encoder"):
        load_pipeline(tmp_path / "pipe", folders[1], dtype=torch.float32)
