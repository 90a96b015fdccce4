"""Every recipe, and every part stacked on a recipe, goes through the real command line."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from diffusers import AutoencoderKL, AutoencoderKLWan, WanTransformer3DModel
from transformers import T5Config

from flexivid.budget.cost import macs
from flexivid.media.write import write_video
from flexivid.model.config import PRESETS, FlexiDiTConfig
from flexivid.train import main
from flexivid.training.modes import ModeChoice, Phase

CONF = Path(__file__).resolve().parents[1] / "conf"
DISTILLATIONS = sorted(CONF.glob("distill_*.yaml"))
AUTOENCODERS = sorted(CONF.glob("autoencoder*.yaml"))  # see training/autoencoder
RECIPES = sorted(set(CONF.glob("*.yaml")) - set(DISTILLATIONS) - set(AUTOENCODERS))
ENCODED = [path for path in RECIPES if "codec" in yaml.safe_load(path.read_text())["model"]]  # by hub ids
PARTS = sorted(path for folder in ("model", "data", "trainer") for path in CONF.glob(f"{folder}/*.yaml"))


@pytest.fixture
def program(monkeypatch, tmp_path, capsys):
    """A function that runs ``flexivid.train`` and gives stdout."""
    monkeypatch.setattr(sys, "argv", ["train"])  # main sets it
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # so does Lightning
    monkeypatch.chdir(tmp_path)

    def run(*words):
        with pytest.raises(SystemExit) as stop:
            main(list(map(str, words)))
        told = capsys.readouterr()
        assert stop.value.code == 0, told.err
        return told.out

    return run


def settings_of(path):
    """Settings of a recipe; a trainer section that is a path is read from there."""
    settings = yaml.safe_load(path.read_text())
    if isinstance(settings.get("trainer"), str):
        settings["trainer"] = yaml.safe_load((path.parent / settings["trainer"]).read_text())
    return settings


def leaves(value, *path):
    """Paths and values; of lists of classes only the classes."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, *path, key)
    elif isinstance(value, list) and value and isinstance(value[0], dict) and "class_path" in value[0]:
        yield path, [entry["class_path"] for entry in value]
    else:
        yield path, value


def test_the_main_recipe_is_there():
    assert CONF / "train_video.yaml" in RECIPES


@pytest.mark.parametrize("recipe", ENCODED, ids=lambda path: path.name)
def test_recipe_in_latents_runs_dry_without_weights(program, tmp_path, recipe):
    """The configuration of the codec and of the text encoder is enough."""
    write_video(tmp_path / "a.mp4", np.zeros((16, 64, 64, 3), np.uint8), 8)
    AutoencoderKLWan(base_dim=4, z_dim=16, num_res_blocks=1).save_config(tmp_path / "codec")
    T5Config(d_model=48).save_pretrained(tmp_path / "text")
    settings = yaml.safe_load(recipe.read_text())
    encoders = ["--model.codec", tmp_path / "codec"]
    if "text_encoder" in settings["model"]:
        encoders += ["--model.text_encoder", tmp_path / "text"]
    lines = program("fit", "--config", recipe, "--data.root", tmp_path, *encoders, "--dry-run").splitlines()
    frames, side = settings["data"]["num_frames"], settings["data"]["size"]
    assert f"latent {(frames - 1) // 4 + 1 if frames % 4 == 1 else frames // 4 + 1}x{side // 8}x{side // 8}" in lines[0]
    assert any(line.startswith(f"codec {tmp_path / 'codec'}: {frames}x{side}x{side} -> ") for line in lines)
    assert any("text encoder" in line for line in lines) == (len(encoders) > 2)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Configurations, as large as the published ones where that matters: latent channels and features of a token."""
    folder = tmp_path_factory.mktemp("encoders")
    AutoencoderKLWan(base_dim=4, z_dim=16, num_res_blocks=1).save_config(folder / "wan")
    blocks = {
        kind: [f"{name}Block2D"] * 4
        for kind, name in (("down_block_types", "DownEncoder"), ("up_block_types", "UpDecoder"))
    }
    AutoencoderKL(latent_channels=4, block_out_channels=[32] * 4, **blocks).save_config(folder / "sd")
    T5Config(d_model=4096).save_pretrained(folder / "text")
    (folder / "taef2").mkdir()
    (folder / "taef2" / "taef2.safetensors").touch()
    return folder


def figures(text):
    """Parameters in M, memory in GiB, MACs a step, length of the run."""
    patterns = (
        r"([\d.]+) M param",
        r"training memory (?:about )?([\d.]+) GiB",
        r"([\d.]+ [TG])MACs(?: a step| .*FLOPs\))",
    )
    return [re.search(pattern, text)[1] for pattern in patterns]


@pytest.mark.parametrize(
    "recipe", [path for path in RECIPES if "latents" in path.name or "text_encoder" in path.read_text()]
)
def test_headers_say_what_a_dry_run_says(program, tmp_path, encoders, recipe):
    """Parameters, memory, MACs and FLOPs of a step, steps and time."""
    codec = {"train_latents": "taef2", "latents_ucf101": "sd"}.get(recipe.stem, "wan")
    rows = [f"{i}.mp4,{i}" for i in range(101)] if codec == "sd" else ["0.mp4,"]
    (tmp_path / "list.csv").write_text("\n".join(["path,class", *rows]))
    words = ["--data.root", tmp_path / "list.csv", "--model.codec", encoders / codec]
    if codec == "wan":
        text = {"source": str(encoders / "text"), "max_length": 128}
        words += ["--model.text_encoder", json.dumps(text)]
    printed = program("fit", "--config", recipe, *words, "--dry-run")
    header = recipe.read_text().partition("seed_everything")[0]
    assert figures(header) == figures(printed)
    cost, flops = (float(re.search(rf"([\d.]+) [TG]{unit}", header)[1]) for unit in ("MACs", "FLOPs"))
    assert flops == pytest.approx(2 * cost, rel=0.01)
    steps = settings_of(recipe)["trainer"]["max_steps"]
    time, device = re.search(rf"not measured: (.*) for {steps} steps on (?:an )?(.*?)\.", header).groups()
    assert re.search(rf"^{steps} steps of .*{time} at \S+ \S+/s \({device}\)", printed, re.MULTILINE)


def test_a_dry_run_counts_all_batches_of_a_step(program, tmp_path):
    write_video(tmp_path / "a.mp4", np.zeros((16, 64, 64, 3), np.uint8), 8)
    words = ["fit", "--config", CONF / "train_video.yaml", "--data.root", tmp_path, "--dry-run"]
    alone = program(*words)
    together = program(*words, "--trainer.accumulate_grad_batches", "4")
    one, four = (float(re.search(r"steps of ([\d.]+) GMACs", printed)[1]) for printed in (alone, together))
    assert four == pytest.approx(4 * one, rel=0.01)


@pytest.mark.parametrize("recipe", sorted({*RECIPES} - {*ENCODED}), ids=lambda path: path.name)
def test_recipe_runs_dry(program, tmp_path, recipe):
    write_video(tmp_path / "a.mp4", np.zeros((16, 64, 64, 3), np.uint8), 8)
    lines = program("fit", "--config", recipe, "--data.root", tmp_path, "--dry-run").splitlines()
    settings = yaml.safe_load(recipe.read_text())
    modes = settings["model"]["network"]["modes"]
    assert [line.split()[0] for line in lines[2 : 2 + len(modes)]] == modes
    assert "training memory about" in lines[2 + len(modes)]
    assert {file.name for file in tmp_path.iterdir()} == {"a.mp4"}


@pytest.mark.parametrize("part", [*RECIPES, *PARTS], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_value_arrives(program, part):
    printed = program("fit", "--config", CONF / "train_video.yaml", "--config", part, "--print_config")
    arrived = dict(leaves(yaml.safe_load(printed)))
    given = dict(leaves(settings_of(part)))
    assert given
    assert {path: arrived.get(path) for path in given} == given


@pytest.mark.parametrize("preset", ["tiny", "XL"])
def test_a_long_training_gives_native_most_of_the_compute_and_a_share_of_the_clips(preset):
    """The numbers of the comment in the recipe, on clips of the main job."""
    (phase,) = yaml.safe_load((CONF / "trainer" / "long.yaml").read_text())["model"]["mode_choice"]["phases"]
    main_job = yaml.safe_load((CONF / "train_video.yaml").read_text())
    network = FlexiDiTConfig.preset(preset, modes=main_job["model"]["network"]["modes"])
    size, base = (main_job["data"]["num_frames"], *[main_job["data"]["size"]] * 2), main_job["data"]["batch_size"]
    steps = np.array(Phase(**phase).weights(network.modes))
    native, choice = network.native, ModeChoice()
    clips = steps * [choice.batch_size(mode, size, native, base, native_size=size) for mode in network.modes]
    compute = clips * [macs(network, size, mode) for mode in network.modes]
    assert clips / clips.sum() == pytest.approx([0.28, 0.10, 0.20, 0.41], abs=0.006)
    assert (compute / compute.sum())[0] == pytest.approx(0.66, abs=0.01)


@pytest.mark.parametrize("name", PRESETS)
def test_model_parts_are_the_presets(name):
    file = CONF / "model" / f"{name}.yaml"
    if not file.exists():
        pytest.skip(f"no {file}")
    assert yaml.safe_load(file.read_text())["model"]["network"] == PRESETS[name]


@pytest.mark.parametrize("recipe", DISTILLATIONS, ids=lambda path: path.name)
def test_distillation_arrives_and_runs_dry(program, tmp_path, recipe):
    printed = program("fit", "--config", recipe, "--print_config")
    arrived = dict(leaves(yaml.safe_load(printed)))
    given = dict(leaves(yaml.safe_load(recipe.read_text())))
    assert {path: arrived.get(path) for path in given} == given

    settings = {"num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 32, "num_layers": 1}
    WanTransformer3DModel(**settings).save_config(tmp_path / "wan")
    lines = program("fit", "--config", recipe, "--model.transformer", tmp_path / "wan", "--dry-run").splitlines()
    modes = yaml.safe_load(recipe.read_text())["model"]["modes"]
    assert [line.split()[0] for line in lines[3 : 4 + len(modes)]] == ["native", *modes]
