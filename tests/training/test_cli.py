"""What the command line works out by itself: clips from the folder, the newest run, the precision."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from jsonargparse import Namespace

from flexivid.training import cli
from flexivid.training.cli import FlexiCLI, Parser, _fast_precision, _run_root, clips_of, find_last_good
from flexivid.training.module import Clips


def test_clips_come_from_the_folder(make_data):
    assert clips_of(make_data(size=(16, 24), batch_size=3)) == Clips((4, 16, 24), num_classes=10, batch_size=3)


def test_folder_without_classes(make_data, digits_folder):
    assert clips_of(make_data(root=str(digits_folder / "train" / "3"))).num_classes == 0


def test_last_is_the_newest_run(tmp_path):
    for age, version in enumerate(("version_0", "version_10", "version_9")):
        file = tmp_path / version / "checkpoints" / "last.ckpt"
        file.parent.mkdir(parents=True)
        torch.save({"state_dict": {}}, file)
        os.utime(file, (1000 - age, 1000 - age))
    assert find_last_good(tmp_path) == tmp_path / "version_0" / "checkpoints" / "last.ckpt"


def test_no_last_run(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"got --ckpt_path last, but no checkpoint below .*; expected a run with"
    ):
        find_last_good(tmp_path)


def test_last_needs_a_logger_with_a_folder():
    settings = Namespace(trainer=Namespace(logger=Namespace(init_args=Namespace(save_dir="runs", name="digits"))))
    assert _run_root(settings) == Path("runs/digits")
    with pytest.raises(
        ValueError, match="got --ckpt_path last with a logger that keeps no folder of its own; expected"
    ):
        _run_root(SimpleNamespace(trainer=SimpleNamespace(logger=False)))


@pytest.mark.parametrize(("dtype", "precision"), [(torch.bfloat16, "bf16-mixed"), (torch.float32, "32-true")])
def test_precision_follows_the_hardware(monkeypatch, dtype, precision):
    monkeypatch.setattr(cli, "fast_dtype", lambda device: dtype)
    assert _fast_precision("cpu") == precision


def test_parser_still_tries_every_way_to_read_a_value(capsys):
    parser = Parser(exit_on_error=False)
    parser.add_argument("--value", type=int | list[int])
    assert parser.parse_args(["--value", "[1, 2]"]).value == [1, 2]
    strict = Parser()
    strict.add_argument("--value", type=int)
    with pytest.raises(SystemExit) as stop:
        strict.parse_args(["--valeu", "1"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "error: got --valeu; expected an option that --help lists; did you mean '--value'?\n"
    )


def test_only_errors_of_the_data_are_unwrapped(monkeypatch):
    def fail(error):
        def instantiate(self):
            raise error from ValueError("cause")

        return instantiate

    program = FlexiCLI.__new__(FlexiCLI)
    program.dry_run = False
    for words, told in (("Call to compute_fn of link failed", "cause"), ("got width=33", "got width=33")):
        monkeypatch.setattr(cli.LightningCLI, "instantiate_classes", fail(ValueError(words)))
        with pytest.raises(ValueError, match=told):
            program.instantiate_classes()
