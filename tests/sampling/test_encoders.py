"""Codec and text encoder of a model: found by the recipe or by a flag, loaded once, refused if they are others."""

from dataclasses import replace

import pytest
import torch

from flexivid.latents.causal_autoencoder import AutoencoderConfig, CausalAutoencoder
from flexivid.sampling import encoders
from flexivid.sampling.conditions import conditions_for
from flexivid.sampling.encoders import codec_of, encoder_of, forget_encoder, use_sources
from flexivid.sampling.generate import generate
from flexivid.sampling.settings import Sampling, resized, video_size


def test_both_are_loaded_once(latent_model, monkeypatch):
    loads = []
    build = encoders.build_codec
    monkeypatch.setattr(encoders, "build_codec", lambda settings: loads.append(settings) or build(settings))
    videos = generate(latent_model, prompts=["a red ball"], num_videos=3, batch_size=1).videos
    assert videos.shape == (3, 3, 6, 32, 32)  # 7 frames by the latent, 6 by the recipe
    assert len(loads) == 1
    assert codec_of(latent_model) is codec_of(latent_model)
    encoder = encoder_of(latent_model)
    assert encoder_of(latent_model) is encoder
    forget_encoder(latent_model)
    assert encoder_of(latent_model) is not encoder


def test_other_weights_are_refused(latent_model, tmp_path):
    right = codec_of(latent_model).fingerprint
    torch.manual_seed(1)
    network = CausalAutoencoder(AutoencoderConfig(spatial=4, temporal=2, channels=4, width=12, depth=1))
    wrong = str(network.save(tmp_path / "other"))
    latent_model.recipe = replace(latent_model.recipe, codec_fingerprint=right, text_fingerprint="0" * 16)
    assert codec_of(latent_model).fingerprint == right
    use_sources(latent_model, codec=wrong)
    with pytest.raises(ValueError, match=f"got codec {wrong} of fingerprint .*; expected {right}.*--codec"):
        codec_of(latent_model)
    with pytest.raises(ValueError, match=r"got text encoder .*; expected 0000000000000000.*--text-encoder"):
        encoder_of(latent_model)


def test_what_is_not_here_is_named_by_a_flag(latent_model, codec_folder, text_folder):
    parts = {"codec": "no_such_codec", "text_encoder": "no_such_encoder"}
    latent_model.recipe = replace(latent_model.recipe, **parts)
    with pytest.raises(ValueError, match=r"got a model whose codec no_such_codec cannot be loaded .*--codec"):
        codec_of(latent_model)
    with pytest.raises(ValueError, match=r"got a model whose text encoder no_such_encoder .*--text-encoder"):
        conditions_for(latent_model, prompts=["a"])
    use_sources(latent_model, codec=codec_folder, text_encoder=text_folder)
    assert conditions_for(latent_model, prompts=["a"]).text_tokens == 1
    assert codec_of(latent_model).channels == 4


def test_channels_must_fit(latent_model, build_model, text_model, codec_folder):
    other = build_model(in_channels=3)
    other.recipe = replace(other.recipe, codec=codec_folder)
    with pytest.raises(ValueError, match="with 4 channels; expected 3"):
        codec_of(other)
    wide = build_model(text_channels=24)
    wide.recipe = text_model.recipe
    with pytest.raises(ValueError, match="with 16 features; expected 24"):
        encoder_of(wide)
    with pytest.raises(ValueError, match=r"got --codec .* trained on pixels"):
        use_sources(text_model, codec=codec_folder)
    with pytest.raises(ValueError, match=r"got --text-encoder .* without text"):
        use_sources(build_model(), text_encoder="x")


def test_sizes_are_asked_for_in_pixels(latent_model):
    settings = Sampling().filled(latent_model)
    assert tuple(video_size(latent_model, settings)) == (6, 32, 32)
    larger = resized(latent_model, settings, None, 40, None)
    assert tuple(larger.size) == (4, 10, 8)
    assert tuple(video_size(latent_model, larger)) == (6, 40, 32)
    longer = resized(latent_model, settings, 13, None, None)
    assert tuple(longer.size) == (7, 8, 8)
    assert longer.window_starts == [0, 2, 3]
    assert tuple(video_size(latent_model, longer)) == (13, 32, 32)
    assert tuple(video_size(latent_model, resized(latent_model, settings, 12, None, None))) == (12, 32, 32)
    with pytest.raises(ValueError, match="nearest being 32x32"):
        resized(latent_model, settings, None, 33, None)
