"""The training program: from a folder of videos to a model, on from where it stopped, each mistake one line."""

import logging
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from flexivid import load
from flexivid.media.write import write_video
from flexivid.model.formats import KEY
from flexivid.train import main

RECIPE = Path(__file__).resolve().parents[1] / "conf" / "train_video.yaml"
SMALL = [
    *("--model.network.width=32", "--model.network.depth=1", "--data.size=16", "--data.num_frames=4"),
    *("--data.batch_size=1", "--model.sampling.num_inference_steps=2", "--trainer.accelerator=cpu"),
    *("--trainer.devices=1", "--trainer.val_check_interval=2", "--trainer.enable_model_summary=false"),
]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few.yaml").write_text(RECIPE.read_text().replace("num_videos: 128", "num_videos: 2"))
    monkeypatch.setattr(logging, "raiseExceptions", False)  # Lightning's handler keeps the stderr of an earlier test
    monkeypatch.setattr(sys, "argv", ["train"])  # main sets it
    for name, value in (("PL_GLOBAL_SEED", "0"), ("OMP_NUM_THREADS", "1")):
        monkeypatch.setenv(name, value)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def videos(tmp_path):
    """Two classes of videos: a square that moves right or down."""
    for i in range(12):
        frames = np.zeros((6, 16, 16, 3), np.uint8)
        for t in range(6):
            row, column = (4 + t, i) if i % 2 else (i, 4 + t)
            frames[t, row : row + 4, column : column + 4] = 255
        folder = tmp_path / "videos" / ("right", "down")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"{i}.mp4", frames, 8)
    return tmp_path / "videos"


def fit(root, *words):
    main(["fit", "--config", "few.yaml", "--data.root", str(root), *SMALL, *map(str, words)])


def refused(capsys, *words):
    """The last line of stderr, after Lightning's log; the program must fail as programs do."""
    with pytest.raises(SystemExit) as stop:
        main(list(map(str, words)))
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("error:")] == lines[-1:]
    assert "Traceback" not in "".join(lines)
    assert lines[-1].startswith("error: got ")
    assert "; expected " in lines[-1]
    assert lines[-1].count("; ") >= 2
    return lines[-1]


def test_help_needs_no_torch():
    code = "import sys; from flexivid import train; train.main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "python -m flexivid.train fit --config conf/train_video.yaml" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("flag", ["--dry-run", "--dry_run"])
def test_dry_run_writes_nothing(capsys, videos, tmp_path, flag):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as stop:
        fit(videos, flag)
    lines = capsys.readouterr().out.splitlines()
    assert stop.value.code == 0
    assert [line.split()[0] for line in lines[2:6]] == ["2x4x4", "4x4x4", "2x8x8", "4x8x8"]
    assert [line.split()[5] for line in lines[2:6]] == ["1", "2", "4", "8"]  # clips with as many tokens
    assert "checkpoint" in lines[-1]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_from_a_checkpoint_says_what_to_name_instead(capsys, videos):
    words = ("fit", "--config", "few.yaml", "--data.root", str(videos), *SMALL, "--dry-run")
    assert "write the averaged weights with flexivid.save" in refused(capsys, *words, "--model.init_from", "last.ckpt")


def test_a_run_lists_each_folder_of_its_collection_once(videos, monkeypatch):
    listed = Counter()

    def counting(lists):
        def counted(path="."):
            if not isinstance(path, int):  # an open folder
                listed[os.path.relpath(path, videos)] += 1
            return lists(path)

        return counted

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, counting(getattr(os, name)))
    fit(videos, "--trainer.max_steps=2")  # FVDVsBudget reads real clips at the end
    below = {path: count for path, count in listed.items() if not path.startswith("..")}
    assert below == {".": 1, "right": 1, "down": 1}


def test_from_videos_to_a_model_and_on(videos, tmp_path):
    fit(videos, "--trainer.max_steps=4")
    run = tmp_path / "runs" / "moving_digits" / "version_0"
    made = {"config.yaml", "config.json", "model.safetensors", "checkpoints", "samples", "evaluations"}
    assert made <= set(os.listdir(run))
    assert list(run.glob("events.out.tfevents.*"))
    model = load(run)
    assert (model.config.width, model.config.num_classes, model.recipe.class_names) == (32, 2, ("down", "right"))
    assert model.recipe.global_step == 4
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_steps"] == 4

    fit(videos, "--trainer.max_steps=7", "--ckpt_path", "last")
    assert os.listdir(run.parent) == ["version_0"]  # it goes on in its folder
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == load(run).recipe.global_step == 7
    assert last[KEY]["plans"][-1] == [4, 7]  # the learning rate falls to its end at the new one
    assert max(last["lr_schedulers"][0]["_last_lr"]) < 1e-6


def test_the_last_good_checkpoint_is_found_and_the_saved_settings_start_a_fresh_run(capsys, videos, tmp_path):
    save_often = yaml_with(tmp_path, "every_n_train_steps: 500", "every_n_train_steps: 2")[1]
    few = yaml.safe_load(save_often.read_text())
    few["trainer"]["callbacks"] = [c for c in few["trainer"]["callbacks"] if "Find" not in c["class_path"]][:6]
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(few))
    fit(videos, "--trainer.max_steps=5")
    run = tmp_path / "runs" / "moving_digits" / "version_0"
    last, good = (run / "checkpoints" / name for name in ("last.ckpt", "last_good.ckpt"))
    content = last.read_bytes()
    last.unlink()  # in its place, not in that of its second name
    last.write_bytes(content[: len(content) // 2])
    capsys.readouterr()
    fit(videos, "--trainer.max_steps=7", "--ckpt_path", "last")
    where = "runs/moving_digits/version_0/checkpoints"
    assert f"passes over {where}/last.ckpt, which is cut off, or no checkpoint; going on" in capsys.readouterr().err
    assert (torch.load(last, weights_only=True)["global_step"], load(run).recipe.global_step) == (6, 7)

    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert (saved["ckpt_path"], saved["trainer"]["logger"]["init_args"]["version"]) == (None, None)
    assert saved["trainer"]["max_steps"] == 7
    main(["fit", "--config", str(run / "config.yaml")])
    fresh = run.parent / "version_1"
    assert load(fresh).recipe.global_step == 7
    again = yaml.safe_load((fresh / "config.yaml").read_text())
    assert again == saved

    for file in run.parent.rglob("*.ckpt"):
        file.unlink()
    last.write_bytes(content[:1000])
    good.write_bytes(b"")
    arguments = ["fit", "--config", "few.yaml", "--data.root", videos, *SMALL, "--ckpt_path", "last"]
    message = refused(capsys, *arguments)
    assert (
        f"got --ckpt_path last, but no good checkpoint below runs/moving_digits/ ({where}/last.ckpt, which is cut"
        in (message)
    )


@pytest.mark.parametrize("rate", ["1000 times", "infinite"])
def test_a_diverging_run_ends_with_a_line_and_a_status(capsys, videos, tmp_path, rate):
    learning = {"1000 times": ("2.0", "5.0"), "infinite": ("1e36", "1e36")}[rate]
    names = ("learning_rate", "muon_learning_rate")
    rates = [f"--model.optimizer.{name}={value}" for name, value in zip(names, learning, strict=True)]
    words = ["--trainer.max_steps=40", "--model.optimizer.warmup_steps=2", *rates]
    message = refused(capsys, "fit", "--config", "few.yaml", "--data.root", videos, *SMALL, *words)
    assert "; expected finite losses and gradients that fall; lower model.optimizer.learning_rate" in message
    assert not (tmp_path / "runs" / "moving_digits" / "version_0" / "model.safetensors").exists()


def test_validate_reads_a_checkpoint(capsys, videos, tmp_path):
    fit(videos, "--trainer.max_steps=2")
    last = tmp_path / "runs" / "moving_digits" / "version_0" / "checkpoints" / "last.ckpt"
    main(["validate", "--config", str(RECIPE), "--data.root", str(videos), *SMALL, "--ckpt_path", str(last)])
    assert "val/loss_mode/2x4x4" in capsys.readouterr().out


def yaml_with(tmp_path, old, new):
    text = RECIPE.read_text()
    assert old in text
    (tmp_path / "changed.yaml").write_text(text.replace(old, new, 1))
    return "--config", tmp_path / "changed.yaml"


MISSPELT = {
    "a key": ("width: 256", "widht: 256", "did you mean 'model.network.width'?"),
    "a section": ("data:", "daat:", "did you mean 'data.root'?"),
    "a part of a list": ("- until: 0.35", "- untill: 0.35", "did you mean 'until'?"),
    "a setting of a class": ("minutes:", "minuts:", "did you mean 'minutes'?"),
    "a class": ("callbacks.Speed", "callbacks.Sped", "did you mean 'Speed'?"),
}


@pytest.mark.parametrize("kind", MISSPELT)
def test_misspelt_yaml_names_the_nearest(capsys, tmp_path, kind):
    old, new, hint = MISSPELT[kind]
    assert hint in refused(capsys, "fit", *yaml_with(tmp_path, old, new))


WRONG = {
    "flag": (["--data.rot", "x"], "did you mean '--data.root'?"),
    "flag with =": (["--model.network.widht=3"], "did you mean '--model.network.width'?"),
    "no number": (["--trainer.max_steps", "many"], "got trainer.max_steps=many; expected int"),
    "no choice": (["--model.objective.target", "foo"], "got model.objective.target=foo; expected one of 'x0', 'vel"),
    "no file": (["--config", "nowhere.yaml"], "nowhere.yaml, which does not exist"),
    "no checkpoint": (["--ckpt_path", "nowhere.ckpt"], "got --ckpt_path nowhere.ckpt, which does not exist"),
    "no last run": (["--ckpt_path", "last"], "got --ckpt_path last, but no checkpoint below runs/moving_digits/"),
    "no such folder": (["--data.root", "nowhere"], "got nowhere, which does not exist; expected a folder of videos"),
    "width": (["--model.network.width", "33"], "got width=33 and num_heads=2; expected a width that is a multiple"),
    "batch size": (["--data.batch_size", "0"], "got data.batch_size=0; expected at least 1"),
    "unknown mode": (
        ["--model.mode_choice.phases", "[{until: 1.0, probabilities: {9x9x9: 1.0}}]"],
        "got probabilities for mode 9x9x9; expected the network's modes (2x4x4, 4x4x4, 2x8x8, 4x8x8)",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_each_mistake_is_one_line(capsys, videos, kind):
    words, message = WRONG[kind]
    assert message in refused(capsys, "fit", "--config", RECIPE, "--data.root", videos, *SMALL, *words)


def test_empty_folder(capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    message = refused(capsys, "fit", "--config", RECIPE, "--data.root", "empty", *SMALL)
    assert "got empty, which holds 0 other files and no video; expected files ending in mp4" in message


def test_undecodable_files(capsys, tmp_path):
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "a.mp4").write_text("no video")
    message = refused(capsys, "fit", "--config", RECIPE, "--data.root", "junk", *SMALL)
    assert "got 0 clips from junk: all 1 videos fail to decode (junk/a.mp4: cannot be opened" in message


def test_checkpoint_of_something_else(capsys, videos, tmp_path):
    (tmp_path / "junk.ckpt").write_text("no checkpoint")
    arguments = ["fit", "--config", RECIPE, "--data.root", videos, *SMALL, "--ckpt_path", "junk.ckpt"]
    assert "got --ckpt_path junk.ckpt, which is not one; expected a .ckpt" in refused(capsys, *arguments)


def test_checkpoint_of_another_network(capsys, videos):
    fit(videos, "--trainer.max_steps=1")
    arguments = ["fit", "--config", RECIPE, "--data.root", videos, *SMALL, "--ckpt_path", "last"]
    message = refused(capsys, *arguments, "--model.network.width=64")
    assert "got a checkpoint with width=32 for a network with width=64" in message


def test_a_shared_trainer_section_names_runs_by_their_recipe_and_a_run_is_complete_without_it(videos):
    recipe = RECIPE.parent / "latents_ucf101.yaml"
    words = ["--data.root", str(videos), "--model.codec=pixel", "--trainer.callbacks=[]", "--model.network.num_heads=2"]
    main(["fit", "--config", str(recipe), *words, *SMALL, "--trainer.max_steps=2"])
    saved = Path("runs/latents_ucf101/version_0/config.yaml")
    trainer = yaml.safe_load(saved.read_text())["trainer"]
    assert trainer["gradient_clip_val"] == 1.0
    assert trainer["logger"]["init_args"]["name"] == "latents_ucf101"
    main(["fit", "--config", str(saved)])
    assert Path("runs/latents_ucf101/version_1/config.yaml").is_file()
