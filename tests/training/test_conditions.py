"""Latents, texts and given frames on their way into a training step; nothing is loaded that the data bring."""

from __future__ import annotations

import copy

import pytest
import torch

from flexivid.budget.cost import macs, text_macs
from flexivid.latents.settings import CodecSettings, TextSettings
from flexivid.latents.taef2 import TAEF2
from flexivid.model.conditioning import Condition, Text
from flexivid.training.conditions import Clips, Encoders, dropped, frames_of, given_mask, step_macs
from flexivid.training.modes import generator_of
from flexivid.training.objective import GivenFrames, Objective
from flexivid.training.resume import require_same_meaning

LATENTS = Clips((8, 128, 128), 3, 2, (32, 8, 16, 16), CodecSettings("no_such_codec"), TextSettings("no/such"), 24)


def batch_of(samples: int = 4) -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    return {
        "latent": torch.randn(samples, 32, 8, 16, 16, generator=source),
        "label": torch.arange(samples) % 4 - 1,
        "text_features": torch.randn(samples, 5, 24, generator=source),
        "text_mask": torch.arange(5) < torch.arange(samples)[:, None],
    }


def test_encoded_batches_train_without_any_encoder(make_module):
    module = make_module(clips=LATENTS, given_frames=GivenFrames(first=0.5, prefix=0.5))
    config = module.network.config
    assert (config.in_channels, config.text_channels, config.num_classes, config.given_frames) == (32, 24, 3, True)
    x0, condition = module._inputs(batch_of(), (0, 0, 0, 0))
    losses = module._losses(x0, condition, module.modes[0], (0, 0, 0, 0), drop=True)
    losses.mean().backward()
    assert losses.isfinite().all()
    recipe = module.recipe()
    assert (recipe.codec.source, recipe.text_encoder.source, recipe.num_frames) == ("no_such_codec", "no/such", 8)
    cost = macs(config, (8, 16, 16), module.modes[0], text_tokens=5) + text_macs(config, 5)
    assert step_macs(config, (8, 16, 16), [(module.modes[0], 3)], 2, text_tokens=5) == 6 * cost


def test_one_draw_drops_label_and_text():
    text = Text(torch.ones(1000, 2, 3), torch.ones(1000, 2, dtype=torch.bool))
    condition, chance = Condition(torch.zeros(1000, dtype=torch.long), text), torch.rand(1000)
    lost = dropped(condition, chance, Objective(label_dropout=0.2, text_dropout=0.2), num_classes=7)
    assert torch.equal(lost.label == 7, ~lost.text.mask.any(1))
    assert torch.equal(lost.label == 7, chance < 0.2)
    assert not (dropped(condition, None, Objective(), num_classes=7).label == 7).any()


def test_given_frames_are_those_of_the_probabilities():
    shares = GivenFrames(first=0.4, last=0.1, both=0.2, prefix=0.2, max_prefix=3)
    mask = given_mask(shares, 6, 4000, generator_of((0, 1)))
    assert torch.equal(mask, given_mask(shares, 6, 4000, generator_of((0, 1))))
    first, last = mask[:, 0], mask[:, -1]
    assert (first & last).float().mean() == pytest.approx(0.2, abs=0.03)
    assert (last & ~first).float().mean() == pytest.approx(0.1, abs=0.02)
    assert (~mask.any(1)).float().mean() == pytest.approx(0.1, abs=0.02)
    assert mask[:, 1:3].any(0).all()
    assert not mask[:, 3:5].any()
    assert not given_mask(shares, 1, 100, generator_of((0,))).any()  # a picture would be given whole
    x0 = torch.randn(4000, 2, 6, 1, 1)
    assert torch.equal(frames_of(x0, mask).mask[:, 0, :, 0, 0].bool(), mask)


def test_a_codec_encodes_on_the_fly_and_is_no_part_of_the_module(make_module, tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = TAEF2()
    names = {"encoder": network.encoder, "decoder": network.decoder}
    for name, part in names.items():
        save_file(part.state_dict(), tmp_path / f"{name}.safetensors")
    module = make_module(clips=Clips((2, 32, 32), 0, 2), codec=str(tmp_path))
    assert module.latent_size == (2, 4, 4)
    video = torch.randint(0, 255, (2, 3, 2, 32, 32), dtype=torch.uint8)
    x0, _ = module._inputs({"video": video, "label": torch.tensor([-1, -1])}, (0,))
    assert x0.shape == (2, 32, 2, 4, 4)
    assert not any("codec" in name or "encoder" in name for name in module.state_dict())
    assert copy.deepcopy(module).encoders is module.encoders
    assert module.recipe().codec_fingerprint == module.encoders.codec("cpu").fingerprint


def test_what_cannot_be_trained_is_refused(make_module):
    with pytest.raises(ValueError, match=r"got model\.given_frames for clips of 1 latent frames"):
        make_module(clips=Clips((1, 16, 16)), given_frames=GivenFrames(first=0.5))
    with pytest.raises(ValueError, match="whose sum is at most 1"):
        GivenFrames(first=0.7, both=0.7)
    encoders = Encoders(Clips(text_channels=8), text_encoder="my/encoder")
    with pytest.raises(ValueError, match="got text encoder my/encoder for data without captions"):
        encoders.text({}, torch.device("cpu"))


def test_a_run_resumes_with_a_codec_that_was_moved_but_not_with_another():
    saved = {"codec": "here", "codec_fingerprint": "1"}
    require_same_meaning(saved, {"codec": "there", "codec_fingerprint": "1"})
    with pytest.raises(ValueError, match="got a checkpoint with codec here for a run with here"):
        require_same_meaning(saved, {"codec": "here", "codec_fingerprint": "2"})


def test_pictures_are_videos_of_one_frame(make_module):
    module = make_module(clips=Clips((1, 16, 16), 2, 2))
    x0, condition = torch.randn(2, 3, 1, 16, 16), Condition(torch.tensor([0, 1]))
    for mode in module.modes:
        assert module._losses(x0, condition, mode, (0,), drop=True).isfinite().all()


def test_a_text_encoder_named_by_its_source_alone_is_the_one_that_encoded_the_data():
    """Else samples would be refused by the fingerprint, which counts the limit and the precision."""
    made_by = TextSettings("my/encoder", max_length=8, dtype="bf16")
    clips = Clips(text_encoder=made_by, text_channels=8)
    assert Encoders(clips, text_encoder="my/encoder").text_settings == made_by
    longer = TextSettings("my/encoder", max_length=16)
    assert Encoders(clips, text_encoder=longer).text_settings == longer  # and refused when the data are there
