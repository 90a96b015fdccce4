"""What cannot be a codec is refused in one line, nothing in a file is run, and codecs are told apart."""

import json
import socket
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from flexivid.latents.codec import build_codec
from flexivid.latents.settings import CodecSettings
from tests.latents.codecs import make_network, save_network

WEIGHTS = "diffusion_pytorch_model.safetensors"


def refusal(source):
    with pytest.raises(ValueError, match=r"^got .*; expected .*; ") as refused:
        build_codec(str(source))
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_no_folder_and_no_network(offline):
    assert "does not exist" in refusal("nowhere")
    assert "does not exist" in refusal("a/b/c")
    assert "connect to the network, or download it elsewhere" in refusal("org/no-such-codec")


def test_a_hub_that_does_not_answer_is_given_up_soon(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections and says nothing
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr("flexivid.runtime.hub.HUB_SECONDS", 0.2)
        begin = time.monotonic()
        assert "connect to the network, or download it elsewhere" in refusal("org/no-such-codec")
        assert time.monotonic() - begin < 10


def test_hub_ids_are_read_from_the_cache(tmp_path, monkeypatch):
    """As the hub's library answers where it has the files, or fetches them."""
    save_network("AutoencoderTiny", tmp_path / "vae")
    asked = []

    def snapshot(source, allow_patterns, **options):
        asked.append((source, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert build_codec("org/pipeline").fingerprint == build_codec(str(tmp_path)).fingerprint
    assert "vae/config.json" in asked[0][1]
    assert "vae/diffusion_pytorch_model*.safetensors*" in asked[1][1]
    assert all("*" not in name for name in asked[0][1])


def test_unknown_classes(tmp_path):
    assert "without the configuration" in refusal(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    said = refusal(tmp_path)
    assert "a UNet2DModel" in said
    assert "AutoencoderKLWan" in said
    (tmp_path / "config.json").write_text("{")
    assert "cannot be loaded" in refusal(tmp_path)


def test_pickles_are_not_read(tmp_path):
    network = make_network("AutoencoderTiny")
    network.save_pretrained(tmp_path, safe_serialization=False)
    assert "with weights as safetensors" in refusal(tmp_path)


def test_weights_that_do_not_fit(tmp_path):
    save_network("AutoencoderKL", tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    first = next(iter(weights))
    save_file({name: tensor for name, tensor in weights.items() if name != first}, tmp_path / WEIGHTS)
    assert "1 weights are missing" in refusal(tmp_path)
    save_file(weights | {first: torch.full_like(weights[first], torch.nan)}, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match=f"{first}.*finite|finite.*{first}"):
        build_codec(str(tmp_path))


def test_fingerprints_tell_weights_and_scales_apart(tmp_path):
    save_network("AutoencoderKL", tmp_path / "a")
    first = build_codec(str(tmp_path / "a"))
    assert build_codec({"source": str(tmp_path / "a"), "dtype": "bf16", "tile": 16}).fingerprint == first.fingerprint
    network = make_network("AutoencoderKL")
    network.register_to_config(scaling_factor=0.31)
    network.save_pretrained(tmp_path / "b")
    assert build_codec(str(tmp_path / "b")).fingerprint != first.fingerprint
    network = make_network("AutoencoderKL")
    next(network.parameters()).data[0] += 1e-3
    network.save_pretrained(tmp_path / "c")
    assert build_codec(str(tmp_path / "c")).fingerprint != first.fingerprint


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match=r"got codec setting 'tiel'; .* did you mean 'tile'"):
        build_codec({"source": "pixel", "tiel": 3})
    with pytest.raises(ValueError, match="got codec dtype 'half'; expected one of fp32, bf16, fp16"):
        CodecSettings(dtype="half")
    with pytest.raises(ValueError, match="tile=0"):
        CodecSettings(tile=0)
