"""``flexivid.sample`` with prompts, pictures and sizes; each mistake is one line."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from flexivid.media.pixels import to_bytes
from flexivid.media.write import write_video
from flexivid.model.checkpoint import save
from flexivid.sample import main
from flexivid.sampling.encoders import codec_of
from flexivid.sampling.generate import generate


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.full((40, 32, 3), 90, np.uint8)).save("first.png")
    (tmp_path / "texts.txt").write_text("a red ball\na blue cube\n")


@pytest.fixture
def folders(tmp_path, model, text_model, frame_model, latent_model):
    models = {"classes": model, "text": text_model, "frames": frame_model, "latents": latent_model}
    return {name: str(save(each, tmp_path / name, recipe=each.recipe)) for name, each in models.items()}


def sample(capsys, *words):
    main(list(map(str, words)))
    return capsys.readouterr().out


def manifest(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_prompts_name_files_and_rows(capsys, folders, tmp_path):
    words = ["--prompts-file", "texts.txt", "--negative-prompt", "left", "--guidance-scale", 2]
    text = sample(capsys, "--checkpoint", folders["text"], *words, "--num-videos", 3, "--json", "--budget", 1, 0.5)
    results = json.loads(text.splitlines()[-1])["samples"]
    assert all(row["predicted_macs"] == row["measured_macs"] for row in results)
    assert "guided by a second call without the text" in text
    lines = manifest(tmp_path / "samples")
    assert [line["prompt"] for line in lines[::2]] == ["a red ball", "a blue cube", "a red ball"]
    assert {line["negative_prompt"] for line in lines} == {"left"}
    assert lines[0]["file"] == "000000_seed0_b0.5_a-red-ball.mp4"
    assert lines[0]["sampling"]["text_tokens"] == 3
    assert Image.open(tmp_path / "samples" / "grid.png").height > 2 * (48 + 24)  # strips and prompts


def test_the_null_text_is_said(capsys, folders):
    assert "no --prompt: the model is shown the null text" in sample(capsys, "--checkpoint", folders["text"])


def test_latents_with_everything(capsys, folders, tmp_path, latent_model):
    write_video(tmp_path / "video.mp4", np.full((9, 48, 48, 3), 200, np.uint8), 8)
    prompt = ["--checkpoint", folders["latents"], "--prompt", "a red ball", "--budget", 0.5]
    words = ["--image", "first.png", "--last-image", "first.png", "--size", 40, 32, "--num-frames", 13]
    text = sample(capsys, *prompt, *words, "--json", "--guidance-scale", 2)
    assert "first.png: 40x32 resized" not in text
    assert "3 windows of 4 latent frames a step" in text
    (row,) = json.loads(text.splitlines()[-1])["samples"]
    assert row["predicted_macs"] == row["measured_macs"]
    assert manifest(tmp_path / "samples")[0]["sampling"]["size"] == [7, 10, 8]
    text = sample(capsys, *prompt, "--continue-from", "video.mp4", "--output-dir", "more")
    assert "video.mp4: 48x48 resized to cover 32x32 and cut to it around its centre" in text


@pytest.mark.parametrize("frames", [1, 3])
def test_the_first_frame_is_the_given_one_within_the_error_of_the_codec(latent_model, frames):
    codec = codec_of(latent_model)
    first = np.linspace(-1, 1, 3 * frames * 32 * 32, dtype=np.float32).reshape(3, frames, 32, 32)
    first = latent_model.embed.weight.new_tensor(first)
    video = generate(latent_model, frames=first).videos[0]
    coded = codec.decode(codec.encode(first[None]))[0]
    error = (video[:, :frames] - coded).abs().max()
    assert error < 1e-4  # what is left of a given frame after the codec, to the last bits


def test_one_frame_is_a_picture(capsys, folders, tmp_path, model):
    sample(capsys, "--checkpoint", folders["classes"], "--num-frames", 1, "--label", "cat", "--seed", 3)
    (line,) = manifest(tmp_path / "samples")
    assert line["file"] == "000000_seed3_b1.png"
    made = generate(model, labels=[0], seed=3, size=(1, 8, 8)).videos[0]
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "samples" / line["file"])), to_bytes(made)[:, 0].permute(1, 2, 0)
    )


WRONG = {
    "prompt": ("classes", ["--prompt", "a"], "got a prompt for a model without text"),
    "prompts file": ("classes", ["--prompts-file", "texts.txt"], "got a prompt for a model without text"),
    "label": ("text", ["--label", "0", "--prompt", "a"], "the model has no classes"),
    "image": ("text", ["--image", "first.png"], "for a model without given frames"),
    "two beginnings": ("frames", ["--image", "first.png", "--continue-from", "a.mp4"], "expected one beginning"),
    "no image": ("frames", ["--last-image", "other.png"], "which does not exist"),
    "no video": ("frames", ["--continue-from", "a.mp4"], "a.mp4"),
    "size": ("latents", ["--size", "30"], "the nearest being 32x32"),
    "both": ("text", ["--prompt", "a", "--prompts-file", "texts.txt"], "expected one of them"),
    "codec": ("latents", ["--codec", "nowhere"], "got a model whose codec nowhere cannot be loaded"),
    "encoder": ("text", ["--text-encoder", "nowhere", "--prompt", "a"], "whose text encoder nowhere cannot be loaded"),
    "no codec": ("classes", ["--codec", "nowhere"], "trained on pixels"),
    "window": ("classes", ["--window", "some"], "got window 'some'; expected one of auto, none"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_each_mistake_is_one_line(capsys, folders, kind):
    name, words, message = WRONG[kind]
    with pytest.raises(SystemExit) as stop:
        main(["--checkpoint", folders[name], *words])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in error
    assert error.count("\n") == 1
    assert "; expected " in error


def test_a_stored_source_that_is_gone_is_replaced_by_a_flag(capsys, tmp_path, latent_model, codec_folder, text_folder):
    gone = replace(latent_model.recipe, codec="gone", text_encoder="gone")
    folder = str(save(latent_model, tmp_path / "gone_model", recipe=gone))
    words = ["--codec", codec_folder, "--text-encoder", text_folder, "--prompt", "a red ball"]
    assert "measured" in sample(capsys, "--checkpoint", folder, *words)
