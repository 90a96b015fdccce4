"""The files that were asked for are read; what is not there is refused by name; nothing is warned of."""

from __future__ import annotations

import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from flexivid.pipelines.sample import complete_pipeline, load_pipeline
from flexivid.pretrained.adapter import save_adapter
from flexivid.pretrained.flexify import flexify
from flexivid.pretrained.load import load_transformer
from flexivid.pretrained.model_files import ModelFiles
from flexivid.training.distillation.module import FlexiDistillation
from tests.pretrained.families import CASES, build
from tests.pretrained.pipelines import PIPELINES
from tests.pretrained.quantised import Int8Linear, quantise

PLAIN, HALF = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"
FP16 = ModelFiles(variant="fp16")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pipeline with a variant of its transformer that is told by its values, and a second transformer."""
    folder = tmp_path_factory.mktemp("files") / "pipe"
    PIPELINES["wan"][0]().save_pretrained(folder)
    values = load_file(folder / "transformer" / PLAIN)
    halves = {name: value.half() for name, value in values.items()}
    save_file(halves | {"proj_out.bias": torch.full_like(halves["proj_out.bias"], 0.5)}, folder / "transformer" / HALF)
    shutil.copytree(folder / "transformer", folder / "transformer_2")
    (folder / "transformer_2" / PLAIN).unlink()
    return folder


def test_the_variant_is_read_and_the_plain_files_without_one(folder, caplog) -> None:
    expected = load_file(folder / "transformer" / PLAIN)["proj_out.bias"]
    for where in (folder, folder / "transformer"):
        assert torch.equal(load_transformer(where).proj_out.bias, expected)
        model = load_transformer(where, dtype=torch.bfloat16, files=FP16)
        assert torch.equal(model.proj_out.bias, torch.full_like(expected, 0.5).bfloat16())
        assert model.scale_shift_table.dtype == torch.float32  # kept so by its class
    assert torch.equal(complete_pipeline(folder, dtype=torch.float32).transformer.proj_out.bias, expected)
    assert complete_pipeline(folder, dtype=torch.float32, files=FP16).transformer.proj_out.bias.unique().tolist() == [
        0.5
    ]


def test_the_subfolder_is_read(folder) -> None:
    files = ModelFiles(variant="fp16", subfolder="transformer_2", use_safetensors=True, local_files_only=True)
    assert load_transformer(folder, files=files).proj_out.bias.unique().tolist() == [0.5]
    assert load_transformer(folder, files=files, empty=True).proj_out.bias.is_meta


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            ModelFiles(variant="fp8"),
            r"got variant fp8 for .*transformer; expected one of those there: fp16, none; name it",
        ),
        (
            ModelFiles(subfolder="transformer_2"),
            r"got variant none for .*transformer_2; expected one .*: fp16; name it",
        ),
        (ModelFiles(subfolder="unet"), r"without unet/config.json; expected a diffusers folder"),
        (ModelFiles(revision="main"), r"got revision main for .*; expected a hub id with it"),
    ],
)
def test_what_a_folder_does_not_have_is_refused(folder, files, says) -> None:
    for empty in (False, True):
        with pytest.raises(ValueError, match=says):
            load_transformer(folder, files=files, empty=empty)


def test_other_models_have_no_such_files(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"got variant and local_files_only for .*dit\.pt; expected a diffusers model"):
        load_transformer(tmp_path / "dit.pt", files=ModelFiles(variant="fp16", local_files_only=True))
    for name in ("wan.safetensors", "wan-Q4_0.gguf"):
        with pytest.raises(ValueError, match=r"a single file; expected a diffusers folder .* from_single_file"):
            load_transformer(tmp_path / name)


def test_a_device_or_library_that_is_missing_is_one_line(folder, tmp_path) -> None:
    shutil.copytree(folder / "transformer", tmp_path / "model")
    config = (tmp_path / "model" / "config.json").read_text()
    quantised = '"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": true},'
    (tmp_path / "model" / "config.json").write_text(config.replace("{", "{" + quantised, 1))
    with pytest.raises(
        ValueError, match=r"which cannot be loaded \(.*(bitsandbytes|GPU).*\); expected a diffusers model"
    ):
        load_transformer(tmp_path / "model")


def test_loading_warns_of_nothing(folder, caplog, recwarn) -> None:
    logging.getLogger("diffusers").propagate = True
    load_transformer(folder, dtype=torch.bfloat16)
    load_transformer(folder, dtype=torch.bfloat16, empty=True)
    complete_pipeline(folder, dtype=torch.bfloat16)
    told = [record.getMessage() for record in caplog.records] + [str(warning.message) for warning in recwarn]
    assert not [line for line in told if "dtype" in line or "float32" in line]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_adapter_fits_its_model_in_half_precision_and_by_its_variant(folder, dtype, tmp_path) -> None:
    save_adapter(flexify(load_transformer(folder, files=FP16), ["1x4x4"], rank=2), tmp_path)
    assert list(load_pipeline(folder, tmp_path, dtype=dtype, files=FP16).transformer.flexi.modes) == ["1x4x4"]


def test_distillation_reads_the_same_files(folder) -> None:
    distillation = FlexiDistillation(str(folder), ["1x4x4"], rank=2, files=FP16, weights="fp16")
    distillation.trainer = None
    distillation.configure_model()
    assert distillation.network.proj_out.bias.unique().tolist() == [0.5]
    assert distillation.network.proj_out.weight.dtype == torch.float16


def test_a_tiny_model_of_another_class_is_found_by_its_folder(tmp_path) -> None:
    case = next(case for case in CASES if case.name == "video-dit")
    build(case).save_pretrained(tmp_path / "transformer", variant="bf16")
    (tmp_path / "model_index.json").write_text("{}")
    model = load_transformer(tmp_path, files=ModelFiles(variant="bf16"))
    assert type(model) is type(build(case))


def test_which_weights_keep_their_fingerprint() -> None:
    model = build(CASES[0], torch.bfloat16)
    assert ModelFiles().keep_fingerprint(model)
    assert not FP16.keep_fingerprint(model)
    assert not ModelFiles().keep_fingerprint(build(CASES[0], torch.float16))
    model.enable_layerwise_casting()
    assert not ModelFiles().keep_fingerprint(model)
    assert not ModelFiles().keep_fingerprint(quantise(build(CASES[0]), Int8Linear))


def test_of_a_silent_hub_the_cache_alone_is_read(monkeypatch):
    seen = {}
    monkeypatch.setattr("flexivid.runtime.hub._has", lambda hub_id: None)
    model = torch.nn.Linear(1, 1)
    monkeypatch.setattr("diffusers.AutoModel.from_pretrained", lambda source, **options: seen.update(options) or model)
    load_transformer("owner/name")
    assert seen["local_files_only"] is True
    assert seen["subfolder"] == "transformer"
