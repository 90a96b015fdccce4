"""Prompts, negative prompts, given frames: what samples show, that a text is read once, and what it all costs."""

import warnings
from dataclasses import replace

import pytest
import torch

from flexivid.budget.cost import text_macs
from flexivid.model.flops import CallCounter
from flexivid.sampling.compiling import warm_up
from flexivid.sampling.conditions import conditions_for, null_conditions, read_prompts
from flexivid.sampling.generate import generate, generate_batches
from flexivid.sampling.latency import batches_of, measure_latency
from flexivid.sampling.pictures import Pictures, given_frames
from flexivid.sampling.plan import plan_for
from flexivid.sampling.settings import Sampling, full_macs

PROMPTS = ["a red ball rolls left", "a blue cube"]
EXACT = {"precision": "fp32"}
PLANS = {
    "plain": {},
    "guided": {"guidance_scale": 3.0},
    "packed": {"guidance_scale": 3.0, "packing": "always", "negative_prompt": "blue"},
    "apart": {"guidance_scale": 3.0, "packing": "never", "negative_prompt": "blue"},
    "weak": {"guidance_scale": 3.0, "guide_mode": "2x4x4"},
    "some": {"schedule": "2x2x4x4,1x1x2x2+1x2x2", "guidance_scale": 2.0},
    "long": {"guidance_scale": 2.0, "size": (7, 8, 8)},
}


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("kind", ["text_model", "latent_model"])
def test_measured_cost_is_the_predicted_one(kind, name, request):
    model, plan = request.getfixturevalue(kind), {"budget": 0.5, **PLANS[name]}
    videos = generate(model, prompts=PROMPTS, num_videos=3, batch_size=2, **plan)
    assert videos.measured_macs == videos.predicted_macs > 0


@pytest.mark.parametrize("budget", [0.9, 0.5, 0.2])
def test_a_budget_pays_for_the_text(text_model, budget):
    settings = Sampling(guidance_scale=3.0, num_inference_steps=8).filled(text_model)._replace(text_tokens=200)
    cost = settings.schedule_macs(text_model.config, plan_for(text_model, settings, budget).schedule)
    assert cost <= budget * full_macs(text_model, settings)
    assert full_macs(text_model, settings) > full_macs(text_model, settings._replace(text_tokens=0))
    assert full_macs(text_model, settings) > 2 * text_macs(text_model.config, 200)


def test_a_model_with_text_alone_is_guided(text_model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settings = Sampling(guidance_scale=3.0).filled(text_model)
    assert settings.guidance_scale == 3.0
    plain, guided = (generate(text_model, prompts=PROMPTS, guidance_scale=s, **EXACT).videos for s in (1.0, 3.0))
    assert not torch.allclose(plain, guided, atol=1e-3)


def test_a_negative_prompt_without_guidance_is_told(text_model):
    with pytest.warns(UserWarning, match="negative_prompt has no effect: guidance_scale is 1"):
        generate(text_model, prompts=PROMPTS, negative_prompt="red", num_inference_steps=1, guidance_scale=1.0)


def test_a_text_is_read_once_a_sample(text_model):
    reads = []
    text_model.text.register_forward_pre_hook(lambda module, args: reads.append(args[1]))
    generate(text_model, prompts=PROMPTS, num_videos=4, num_inference_steps=6, guidance_scale=2.0, batch_size=4)
    assert sum(reads) == 2 * 4  # its own and the null text


def test_samples_depend_on_their_prompt_and_not_on_their_batch(text_model):
    together = generate(text_model, prompts=PROMPTS, guidance_scale=2.0, **EXACT).videos
    for i, prompt in enumerate(PROMPTS):
        alone = generate(text_model, prompts=[prompt], seed=i, guidance_scale=2.0, **EXACT).videos[0]
        torch.testing.assert_close(alone, together[i], atol=1e-4, rtol=1e-4)
    null = generate(text_model, num_videos=2, guidance_scale=2.0, **EXACT).videos
    assert not torch.allclose(null, together, atol=1e-3)


def test_packing_and_negative_prompts(text_model):
    shared = {"prompts": PROMPTS, "guidance_scale": 3.0, **EXACT}
    packed, apart = (
        generate(text_model, packing=packing, negative_prompt="blue", **shared).videos
        for packing in ("always", "never")
    )
    torch.testing.assert_close(packed, apart, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(apart, generate(text_model, **shared).videos, atol=1e-3)
    unguided = {**shared, "guidance_scale": 1.0}
    same = [generate(text_model, negative_prompt=text, **unguided).videos for text in ("blue", None)]
    assert torch.equal(*same)


def test_a_prompt_equal_to_the_negative_one_is_not_guided(text_model):
    shared = {"prompts": PROMPTS[:1], **EXACT}
    guided = generate(text_model, negative_prompt=PROMPTS[0], guidance_scale=5.0, **shared).videos
    torch.testing.assert_close(guided, generate(text_model, **shared).videos, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_the_given_frames_are_the_frames_of_the_sample(frame_model, guidance_scale):
    first, last = torch.rand(3, 2, 8, 8) * 2 - 1, torch.rand(3, 1, 8, 8) * 2 - 1
    shared = {"frames": Pictures(first, last), "guidance_scale": guidance_scale}
    videos = generate(frame_model, num_videos=2, frame_guidance=True, **shared).videos
    assert torch.equal(videos[:, :, :2], first.expand(2, -1, -1, -1, -1))
    assert torch.equal(videos[:, :, -1:], last.expand(2, -1, -1, -1, -1))
    free = generate(frame_model, num_videos=2).videos
    assert not torch.allclose(videos[:, :, 2:-1], free[:, :, 2:-1], atol=1e-3)  # the rest follows from them


def test_guidance_over_frames_is_an_option(frame_model):
    shared = {"frames": torch.ones(3, 1, 8, 8), "guidance_scale": 3.0, **EXACT}
    with pytest.warns(UserWarning, match="guidance_scale has no effect: the model has no classes and no text"):
        plain = generate(frame_model, **shared).videos
    over = generate(frame_model, frame_guidance=True, **shared)
    assert not torch.allclose(over.videos, plain, atol=1e-3)
    assert over.measured_macs == over.predicted_macs
    packed = generate(frame_model, frame_guidance=True, packing="always", **shared).videos
    torch.testing.assert_close(packed, over.videos, atol=1e-4, rtol=1e-4)


def test_long_videos_are_made_in_windows(model):
    shared = {"labels": [0, 1], "num_inference_steps": 4, **EXACT}
    long = generate(model, size=(10, 8, 8), guidance_scale=2.0, **shared)
    at_once = generate(model, size=(10, 8, 8), guidance_scale=2.0, window="none", **shared)
    assert long.videos.shape == at_once.videos.shape == (2, 3, 10, 8, 8)
    assert long.measured_macs == long.predicted_macs
    assert at_once.measured_macs == at_once.predicted_macs
    assert not torch.equal(long.videos, at_once.videos)
    parts = generate(model, size=(10, 8, 8), guidance_scale=2.0, batch_size=1, **shared).videos
    torch.testing.assert_close(parts, long.videos, atol=1e-4, rtol=1e-4)


def test_steps_are_counted_by_videos_and_outputs_reused_by_windows(model):
    settings = Sampling(size=(10, 8, 8), precision="fp32").filled(model)
    plan, heard = plan_for(model, settings, 1.0, "1x1x2x2,1xreuse,1x2x4x4"), []
    batches = generate_batches(
        model,
        plan.followed,
        plan.settings(settings),
        conditions=conditions_for(model, 2),
        on_step=lambda n, step: heard.append((n, str(step))),
    )
    assert next(batches)[1].isfinite().all()
    assert heard == [(2, "1x2x2"), (2, "reuse"), (2, "2x4x4")]


def test_given_frames_of_long_videos(frame_model):
    first = torch.rand(3, 3, 8, 8)
    video = generate(frame_model, frames=first, size=(9, 8, 8)).videos[0]
    assert torch.equal(video[:, :3], first)


def test_time_is_measured_with_texts(text_model):
    settings = Sampling().filled(text_model)._replace(text_tokens=5)
    batches = batches_of(text_model, settings, 2)
    with CallCounter(text_model) as counter:
        warm_up(text_model, text_model.config.modes, settings, 2)
    assert counter.calls == 2
    assert min(measure_latency(text_model, settings, batches).values()) > 0
    assert null_conditions(text_model, settings, 3).text_tokens == 5


def test_long_prompts_are_cut_with_a_warning(text_model):
    text_model.recipe = replace(
        text_model.recipe, text_encoder={**text_model.recipe.text_encoder.to_plain(), "max_length": 3}
    )
    with pytest.warns(UserWarning, match="got a caption of 5 tokens .* expected at most 3; the rest is cut"):
        assert conditions_for(text_model, prompts=PROMPTS).text_tokens == 3


def test_conditions_are_cut_by_index(text_model):
    conditions = conditions_for(text_model, 5, prompts=PROMPTS, negative_prompt="blue")
    some = conditions.take([3, 0])
    assert some.prompts == (PROMPTS[1], PROMPTS[0])
    shown = some.shown(torch.device("cpu")).text
    texts = conditions.shown(torch.device("cpu")).text
    assert torch.equal(shown.features, texts.features[[3, 0]])
    assert len(conditions.text.features) == 3  # two prompts and the negative one, each encoded once
    assert conditions.prompt_digests().unique().tolist() == conditions.prompt_digests()[:2].sort().values.tolist()


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        ("model", {"prompts": ["a"]}, "got a prompt for a model without text"),
        ("model", {"negative_prompt": "a"}, "got a prompt for a model without text"),
        ("text_model", {"labels": [0]}, "got labels .*; expected none, the model has no classes"),
        ("text_model", {"frames": torch.zeros(3, 1, 8, 8)}, "got given frames for a model without"),
        ("frame_model", {"frames": torch.zeros(3, 1, 8, 9)}, "got given frames .* expected .*3, k, 8, 8"),
        ("frame_model", {"frames": torch.zeros(3, 5, 8, 8)}, "with k from 1 to 4"),
    ],
)
def test_what_does_not_fit_is_refused(kind, wrong, message, request):
    with pytest.raises(ValueError, match=message):
        generate(request.getfixturevalue(kind), **wrong)


def test_prompts_of_a_file(tmp_path):
    (tmp_path / "texts.txt").write_text("a red ball\n\n  a blue cube \n")
    assert read_prompts(None, str(tmp_path / "texts.txt")) == ["a red ball", "a blue cube"]
    with pytest.raises(ValueError, match="got --prompt and --prompts-file; expected one"):
        read_prompts(["a"], str(tmp_path / "texts.txt"))
    (tmp_path / "texts.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match="is not UTF-8"):
        read_prompts(None, str(tmp_path / "texts.txt"))
    (tmp_path / "texts.txt").write_text("\n")
    with pytest.raises(ValueError, match="without a line"):
        read_prompts(None, str(tmp_path / "texts.txt"))


def test_given_frames_of_a_codec_stand_where_they_stand_in_the_video(latent_model):
    settings = Sampling().filled(latent_model)
    first, last = torch.rand(3, 4, 32, 32), torch.rand(3, 1, 32, 32)
    frames = given_frames(latent_model, settings, Pictures(first, last))
    assert frames.latent.shape == (1, 4, 4, 8, 8)
    assert frames.mask.mean((0, 1, 3, 4)).tolist() == [1, 1, 0, 1]  # 1 + 2 of the 4 first frames, and the last pair
