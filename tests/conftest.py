"""Every test leaves the random generators as it found them, and no test touches the user's cache folder."""

import importlib.util
import os
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flexivid.model.config import FlexiDiTConfig
from flexivid.model.flexidit import FlexiDiT
from flexivid.model.recipe import Recipe


@pytest.fixture(autouse=True)
def keep_random_state():
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    yield
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])


@pytest.fixture(scope="session")
def load_script():
    """A function that loads a script outside the package as a module; its argument is the path from the root."""

    def load(path):
        file = Path(__file__).resolve().parents[1] / path
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def models_folder(tmp_path, monkeypatch):
    """Where shipped models are looked for in this test, instead of in the package; empty at first."""
    from flexivid.model import shipped

    folder = tmp_path / "package" / "models"
    folder.mkdir(parents=True)
    monkeypatch.setattr(shipped, "FOLDER", folder)
    return folder


@pytest.fixture(autouse=True, scope="session")
def own_cache_folder(tmp_path_factory):
    before = os.environ.get("FLEXIVID_CACHE")
    os.environ["FLEXIVID_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("FLEXIVID_CACHE")
    if before is not None:
        os.environ["FLEXIVID_CACHE"] = before


RECIPE = Recipe.from_dict(
    {
        "process": {"path": "flow", "target": "x0"},
        "codec": "pixel",
        "size": [4, 8, 8],
        "fps": 8.0,
        "class_names": ["cat", "dog", "7"],
        "sampling": {"num_inference_steps": 4, "guidance_scale": 1.0, "shift": 2.0},
    }
)


def build(**changes):
    shape = {"width": 32, "depth": 2, "num_heads": 2, "modes": ("1x2x2", "2x4x4"), "num_classes": 3}
    model = FlexiDiT(FlexiDiTConfig(**{**shape, **changes}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # fresh networks start as functions of little: zero gates, zero output
        for parameter in model.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.recipe = RECIPE
    return model.eval()


@pytest.fixture(autouse=True)
def one_thread():
    """Small products only wait for each other in several threads; on a busy machine that costs 100x."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def build_model():
    """A function that makes a network; its arguments are fields of the config."""
    return build


@pytest.fixture
def model():
    return build()


@pytest.fixture
def text_model(text_folder):
    """A network that reads text, without classes."""
    model = build(num_classes=0, text_channels=16)
    model.recipe = replace(RECIPE, class_names=(), text_encoder=text_folder)
    return model


@pytest.fixture
def frame_model():
    """A network of pixels that takes given frames, without classes."""
    model = build(num_classes=0, given_frames=True)
    model.recipe = replace(RECIPE, class_names=())
    return model


@pytest.fixture
def latent_model(text_folder, codec_folder):
    """A network of latents with text and given frames: videos of 7 frames of 32x32."""
    model = build(num_classes=0, in_channels=4, text_channels=16, given_frames=True)
    changes = {"class_names": (), "text_encoder": text_folder, "codec": codec_folder, "num_frames": 6}
    model.recipe = replace(RECIPE, **changes)
    return model


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory):
    """A tiny text encoder with 16 features that knows a few words."""
    import transformers
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = ["<pad>", "<unk>", "a", "red", "blue", "ball", "cube", "rolls", "left", "right"]
    tokens = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokens.pre_tokenizer = Whitespace()
    folder = tmp_path_factory.mktemp("text_encoder")
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=len(words), max_position_embeddings=12, **shape)
    transformers.BertModel(config).save_pretrained(folder)
    marks = {"pad_token": "<pad>", "unk_token": "<unk>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokens, **marks).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def codec_folder(tmp_path_factory):
    """A tiny causal autoencoder: 4 channels, 4 pixels a cell, the first frame alone and then pairs of frames."""
    from flexivid.latents.causal_autoencoder import AutoencoderConfig, CausalAutoencoder

    torch.manual_seed(0)
    network = CausalAutoencoder(AutoencoderConfig(spatial=4, temporal=2, channels=4, width=12, depth=1))
    return str(network.eval().save(tmp_path_factory.mktemp("autoencoder")))


class FakeExtractor(torch.nn.Module):
    """A fixed random map of colours and of their changes; has what an extractor must have."""

    name, metric_name, fingerprint, preprocessing = "fake", "fvd[fake]", "0" * 16, "none"
    num_features, min_frames = 6, 2

    def __init__(self):
        super().__init__()
        weight = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
        self.weight = torch.nn.Parameter(weight, requires_grad=False)

    def forward(self, videos):
        change = videos.diff(dim=2).abs()
        return torch.cat([videos.mean((2, 3, 4)), change.mean((2, 3, 4))], dim=1) @ self.weight


@pytest.fixture
def extractor():
    return FakeExtractor()
