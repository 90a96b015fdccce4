"""Text encoders of several families, tiny and saved to a folder: masks, null texts, cut captions, errors."""

from __future__ import annotations

import json
import shutil
import socket
import time
import warnings
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from flexivid.latents.text_encoder import TextEncoder, TextSettings, text_channels
from flexivid.runtime.hub import is_within_reach

WORDS = ["<pad>", "<unk>", "</s>", "a", "cat", "waves", "on", "the", "beach"]
SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
SHAPES = {  # class whose weights are saved, its configuration
    "t5": (transformers.T5ForConditionalGeneration, transformers.T5Config(vocab_size=9, **T5)),
    "umt5": (transformers.UMT5EncoderModel, transformers.UMT5Config(vocab_size=9, **T5)),
    "clip": (
        transformers.CLIPTextModel,
        transformers.CLIPTextConfig(vocab_size=9, max_position_embeddings=12, **SMALL),
    ),
    "bert": (transformers.BertModel, transformers.BertConfig(vocab_size=9, max_position_embeddings=12, **SMALL)),
}


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    marks = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, **marks)


@pytest.fixture(params=SHAPES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    network, shape = SHAPES[request.param]
    torch.manual_seed(0)
    network(shape).save_pretrained(tmp_path / "encoder")
    tokenizer().save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def test_a_caption_does_not_depend_on_the_others_of_its_batch(folder: Path) -> None:
    encoder = TextEncoder(TextSettings(str(folder)))
    both = encoder.encode(["a cat", "waves on the beach"])
    assert both.features.shape == (2, 5, encoder.channels)
    assert encoder.channels == 16
    assert both.mask.tolist() == [[True, True, True, False, False], [True] * 5]
    assert not both.features[0, 3:].any()
    torch.testing.assert_close(encoder.encode(["a cat"]).features, both.features[:1, :3])
    assert not torch.allclose(both.features[0, 0], both.features[1, 0])


def test_an_empty_caption_has_no_tokens(folder: Path) -> None:
    encoded = TextEncoder(TextSettings(str(folder))).encode(["", "a cat", "  "])
    assert encoded.mask.sum(1).tolist() == [0, 3, 0]
    assert not encoded.features[[0, 2]].any()


def test_a_long_caption_is_cut_and_said(folder: Path) -> None:
    encoder = TextEncoder(TextSettings(str(folder), max_length=4))
    with pytest.warns(UserWarning, match=r"got a caption of 10 tokens .* expected at most 4"):
        assert encoder.encode(["cat " * 9]).features.shape[1] == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode(["a cat"])


def test_captions_are_tokenised_once(folder: Path) -> None:
    encoder, batches = TextEncoder(TextSettings(str(folder), max_length=4)), []
    words = encoder._tokenizer
    encoder._tokenizer = lambda captions, **options: batches.append(captions) or words(captions, **options)
    encoder.encode(["a cat", "waves"])
    assert batches == [["a cat", "waves"]]
    with pytest.warns(UserWarning, match="got a caption of 5 tokens"):
        cut = encoder.encode(["waves on the beach", "a cat"])
    assert len(batches) == 3  # again only where a caption must be cut
    assert cut.mask.tolist() == [[True] * 4, [True] * 3 + [False]]


def test_the_fingerprint_is_that_of_the_weights_and_the_limit(folder: Path) -> None:
    prints = [TextEncoder(TextSettings(str(folder), length)).fingerprint() for length in (4, 4, 5)]
    assert prints[0] == prints[1] != prints[2]
    network, shape = SHAPES[{"clip_text_model": "clip"}.get(kind := kind_of(folder), kind)]
    torch.manual_seed(1)
    network(shape).save_pretrained(folder)
    assert TextEncoder(TextSettings(str(folder), 4)).fingerprint() != prints[0]


def kind_of(folder: Path) -> str:
    return json.loads((folder / "config.json").read_text())["model_type"]


def test_the_limit_of_an_encoder_is_kept(folder: Path) -> None:
    limit = TextEncoder(TextSettings(str(folder))).max_length
    assert limit == (12 if kind_of(folder) in ("bert", "clip_text_model") else 256)


def test_a_pipeline_of_diffusers_is_read_by_its_folders(folder: Path, tmp_path: Path) -> None:
    pipeline = tmp_path / "pipeline"
    pipeline.mkdir()
    network, shape = SHAPES["umt5"]
    network(shape).save_pretrained(pipeline / "text_encoder")
    tokenizer().save_pretrained(pipeline / "tokenizer")
    assert TextEncoder(TextSettings(str(pipeline))).encode(["a cat"]).mask.all()


def test_what_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got text encoder nothing; expected a folder or an id"):
        TextEncoder(TextSettings("nothing"))
    with pytest.raises(ValueError, match=r"which cannot be loaded .* check the name, the folder and the network"):
        TextEncoder(TextSettings("nobody/has-this", local_files_only=True))
    with pytest.raises(ValueError, match="which cannot be loaded"):
        TextEncoder(TextSettings(str(tmp_path)))
    with pytest.raises(ValueError, match="max_length=0"):
        TextSettings("x/y", max_length=0)
    with pytest.raises(ValueError, match="dtype 'int8'"):
        TextSettings("x/y", dtype="int8")


def test_null_texts_alone_need_no_token(text_folder: str) -> None:
    """A tokenizer that marks no end makes no token of an empty caption."""
    encoder = TextEncoder(TextSettings(text_folder))
    features, mask = encoder.encode(["", " "])
    assert features.shape == (2, 1, encoder.channels)
    assert not mask.any()
    assert not encoder.encode(["", "a ball"]).mask[0].any()


def test_a_hub_that_does_not_answer_is_given_up_soon(text_folder: str, tmp_path: Path, monkeypatch) -> None:
    """Then the cache is read, and the hub asked for nothing more."""
    version = "a" * 40
    shutil.copytree(text_folder, tmp_path / "models--org--cached" / "snapshots" / version)
    (tmp_path / "models--org--cached" / "refs").mkdir()
    (tmp_path / "models--org--cached" / "refs" / "main").write_text(version)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("flexivid.runtime.hub.HUB_SECONDS", 0.2)
    text_channels(TextSettings(text_folder))  # the libraries are imported
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections and says nothing
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        begin = time.monotonic()
        cached = TextEncoder(TextSettings("org/cached"))
        assert cached.fingerprint() == TextEncoder(TextSettings(text_folder)).fingerprint()
        with pytest.raises(ValueError, match="got text encoder org/missing, which cannot be loaded"):
            TextEncoder(TextSettings("org/missing"))
        assert time.monotonic() - begin < 10


def test_what_is_within_reach(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = tmp_path / "models--org--cached" / "snapshots" / ("a" * 40)
    folder.mkdir(parents=True)
    (tmp_path / "models--org--cached" / "refs").mkdir()
    (tmp_path / "models--org--cached" / "refs" / "main").write_text("a" * 40)
    assert not is_within_reach("org/cached")  # a download that was cut off
    (folder / "model.safetensors").touch()
    assert is_within_reach("org/cached")
    assert not is_within_reach("org/missing")
