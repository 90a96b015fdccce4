"""Evaluation of models with text: samples show what the real clips show, and the protocol says so."""

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from flexivid.calibration.calibrate import calibrate
from flexivid.calibration.scoring import find_judge
from flexivid.evaluate import main
from flexivid.evaluation.clips import read_blocks
from flexivid.evaluation.prompts import KINDS, scattered
from flexivid.evaluation.report import legend
from flexivid.evaluation.run import Request, finish, prepare
from flexivid.media.pixels import to_unit
from flexivid.media.write import write_video
from flexivid.model.checkpoint import save
from flexivid.sampling.conditions import conditions_for
from flexivid.sampling.generate import generate_batches
from flexivid.sampling.pictures import Pictures, given_frames
from flexivid.sampling.settings import Sampling

pytestmark = pytest.mark.filterwarnings("ignore:got .* videos. expected at least")
CAPTIONS = ["a red ball", "a blue cube", "a red cube rolls left"]


@pytest.fixture
def videos(tmp_path):
    """A function that fills a folder with videos of noise, with a caption each."""

    def write(captions, size=32, frames=7):
        folder = tmp_path / "videos" / "train"
        folder.mkdir(parents=True)
        rng = np.random.default_rng(0)
        for i in range(6):
            write_video(folder / f"{i}.mp4", rng.integers(0, 256, (frames, size, size, 3), np.uint8), 8)
            if captions:
                (folder / f"{i}.txt").write_text(captions[i % len(captions)])
        return str(tmp_path / "videos")

    return write


def request_of(model, tmp_path, reference, **changes):
    folder = str(save(model, tmp_path / "model", recipe=model.recipe))
    values = {"num_videos": 4, "reference": reference, "budgets": (1.0, 0.5), "split": "train", **changes}
    return Request(folder, str(tmp_path / "out"), sampling={"num_inference_steps": 2, "batch_size": 2}, **values)


def test_few_samples_go_with_clips_from_all_over_the_collection():
    for count in (1, 2, 30, 512):
        order = scattered(count)
        assert sorted(order) == list(range(count))
        for number in range(2, count):
            first = sorted(order[:number])
            gaps = [after - before for before, after in pairwise(first)]
            assert max(first[0] + 1, count - first[-1], *gaps) <= 2.7 * count / number + 1


def test_prompts_are_the_captions_of_the_clips(latent_model, tmp_path, videos):
    job = prepare(request_of(latent_model, tmp_path, videos(CAPTIONS)), "cpu")
    clips = job.real.clips
    assert job.task.conditions.prompts == tuple(clips.caption(i) for i in scattered(4))
    assert set(job.task.conditions.prompts) == set(CAPTIONS)
    assert (job.protocol.num_frames, job.protocol.height) == (6, 32)  # of the pixels, not of the latents
    sampling = json.loads(job.protocol.sampling)
    assert sampling["prompts"].startswith("captions of the reference ")
    assert sampling["text_tokens"] == job.task.settings.text_tokens == 5
    evaluation, blocks = finish(job)
    assert [row.budget for row in evaluation.rows] == [1.0, 0.5]
    assert all(np.isfinite(row.scores.fvd) for row in evaluation.rows)
    macs = {row.budget: row.macs for row in evaluation.rows}
    assert macs[0.5] <= 0.5 * macs[1.0]
    again = prepare(request_of(latent_model, tmp_path, str(tmp_path / "videos")), "cpu")
    assert all(again.samples.has(block.plan, block.indices.tolist()) for block in blocks)
    assert all(again.samples.read(block.plan, block.indices.tolist()) for block in blocks)


@pytest.mark.parametrize(
    ("words", "part", "caption"),
    [
        ((), "held_out", "a cube"),
        (("--split", "train"), "train", "a red ball"),
        (("--split", "val"), "held_out", "a cube"),
    ],
)
def test_the_program_says_whose_captions_it_shows(text_model, tmp_path, videos, capsys, words, part, caption):
    root, model = videos(CAPTIONS, 8, 4), str(save(text_model, tmp_path / "model", recipe=text_model.recipe))
    shutil.copytree(f"{root}/train", f"{root}/val")
    for i in range(6):
        (tmp_path / "videos" / "val" / f"{i}.txt").write_text("a cube")
    options = ["--reference", root, "--num-videos", "4", "--output-dir", str(tmp_path / "out"), "--dry-run", *words]
    main(["--checkpoint", model, *options])
    printed = capsys.readouterr().out
    assert f"prompts: captions of the reference ({part}), in turn, e.g. '{caption}'" in printed
    assert f"reference {root} ({part}): 4 of 6 clips" in printed
    note = "0 of 1 held-out captions are among those trained on"
    assert (note in printed) == (part == "held_out")
    (tmp_path / "videos" / "train" / "0.txt").write_text("a cube")
    main(["--checkpoint", model, *options])
    assert (note.replace("0 of", "1 of") in capsys.readouterr().out) == (part == "held_out")


def test_other_prompts_are_another_protocol_and_other_samples(text_model, tmp_path, videos):
    (tmp_path / "texts.txt").write_text("a blue ball\n")
    first = prepare(request_of(text_model, tmp_path, videos(CAPTIONS, 8, 4)), "cpu")
    finish(first)
    changes = {"prompts_file": str(tmp_path / "texts.txt")}
    second = prepare(request_of(text_model, tmp_path, str(tmp_path / "videos"), **changes), "cpu")
    assert second.task.conditions.prompts == ("a blue ball",) * 4
    assert json.loads(second.protocol.sampling)["prompts"].startswith("lines of a file ")
    assert second.protocol != first.protocol
    assert second.protocol.key() == first.protocol.key()  # the real clips are the same
    assert second.samples.read(0, [0, 1]) is None


@pytest.mark.parametrize("kind", ["first", "last", "both"])
def test_samples_are_given_frames_of_the_clips(latent_model, tmp_path, videos, kind):
    request = request_of(latent_model, tmp_path, videos(CAPTIONS, 32, 6), num_reference=3, given_frames=kind)
    job = prepare(request, "cpu")
    conditions, settings, clips = job.task.conditions, job.task.settings, job.real.clips
    numbers = [*scattered(3), scattered(3)[0]]
    assert conditions.prompts == tuple(clips.caption(number) for number in numbers)
    _, real = next(read_blocks(clips, [[0, 1, 2]]))
    frames = conditions.frames_on(torch.device("cpu"))
    for i, number in enumerate(numbers):
        first = to_unit(real[number][:, :1]) if kind != "last" else None
        last = to_unit(real[number][:, -1:]) if kind != "first" else None
        alone = given_frames(latent_model, settings, Pictures(first, last))
        assert torch.equal(frames.latent[i], alone.latent[0])
        assert torch.equal(frames.mask[i], alone.mask[0])
    evaluation, blocks = finish(job)
    assert "given_frames" in json.loads(evaluation.protocol.sampling)
    assert legend(evaluation).endswith(f" Samples are given {KINDS[kind]} of each real clip.")
    plain = prepare(request_of(latent_model, tmp_path, str(tmp_path / "videos"), num_reference=3), "cpu")
    assert plain.samples.read(blocks[0].plan, blocks[0].indices.tolist()) is None
    assert "Samples are given" not in legend(finish(plain)[0])


def test_given_frames_come_with_their_classes_and_stay_in_the_samples(build_model, tmp_path, videos):
    model = build_model(num_classes=2, given_frames=True)
    model.recipe = replace(model.recipe, class_names=("a", "b"))
    root = Path(videos(None, 8, 4))
    for name in ("b", "a"):
        (root / "train" / name).mkdir()
    for i in range(6):
        (root / "train" / f"{i}.mp4").rename(root / "train" / "ba"[i % 2] / f"{i}.mp4")
    job = prepare(request_of(model, tmp_path, str(root), given_frames="first"), "cpu")
    clips, conditions = job.real.clips, job.task.conditions
    numbers = scattered(4)
    assert conditions.labels.tolist() == [clips.label(number) for number in numbers]
    _, real = next(read_blocks(clips, [list(range(4))]))
    for plan in job.task.plans[:2]:
        batches = generate_batches(model, plan.followed, job.task.settings, conditions=conditions)
        made = torch.cat([part for _, part in batches])
        assert torch.equal(made[:, :, 0], to_unit(real)[numbers, :, 0])


def test_frames_for_a_model_without_are_refused(text_model, tmp_path, videos):
    with pytest.raises(ValueError, match="got given frames for a model without; expected none"):
        prepare(request_of(text_model, tmp_path, videos(CAPTIONS, 8, 4), given_frames="last"), "cpu")
    with pytest.raises(ValueError, match="got --given-frames middle; expected one of first, last, both"):
        prepare(request_of(text_model, tmp_path, str(tmp_path / "videos"), given_frames="middle"), "cpu")


def test_clips_without_captions_are_refused(text_model, tmp_path, videos, model):
    with pytest.raises(ValueError, match=r"without captions for a model that reads text; .*--prompts-file"):
        prepare(request_of(text_model, tmp_path, videos(None, 8, 4)), "cpu")
    with pytest.raises(ValueError, match=r"got --prompts-file texts.txt for a model without text"):
        prepare(request_of(model, tmp_path, str(tmp_path / "videos"), prompts_file="texts.txt"), "cpu")


def test_models_of_classes_have_the_protocol_that_they_had(model, tmp_path, videos):
    job = prepare(request_of(model, tmp_path, videos(CAPTIONS, 8, 4)), "cpu")
    assert job.task.conditions.prompts == ()
    assert json.loads(job.protocol.sampling) == json.loads(json.dumps(job.task.settings._asdict()))


def test_search_and_calibration_take_prompts(text_model, tmp_path, videos):
    request = request_of(text_model, tmp_path, videos(CAPTIONS, 8, 4))
    judge = find_judge(request, device="cpu")
    assert set(judge.conditions.prompts) == set(CAPTIONS)
    settings = Sampling(num_inference_steps=3, precision="fp32").filled(text_model)
    shown = [conditions_for(text_model, 2, prompts=prompts) for prompts in (CAPTIONS[:2], None)]
    tables = [calibrate(text_model, settings, num_videos=2, conditions=each).table for each in shown]
    assert tables[0].errors != tables[1].errors
    assert tables[0].settings == tables[1].settings


def test_pictures_are_compared_as_still_videos(model, tmp_path, videos):
    job = prepare(request_of(model, tmp_path, videos(None, 8, 4), size=(1, None, None)), "cpu")
    assert job.protocol.metric == "fvd[motion-still]"
    assert job.protocol.preprocessing.startswith("the frame 4 times; ")
    assert np.isfinite(finish(job)[0].rows[0].scores.fvd)
