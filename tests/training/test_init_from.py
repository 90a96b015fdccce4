"""A run may start from pre-trained weights, and trains them in all modes."""

import pytest
import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel

from flexivid.data.encode_request import EncodeRequest
from flexivid.data.encoding import encode_collection
from flexivid.latents.codec import build_codec
from flexivid.latents.settings import CodecSettings
from flexivid.model.checkpoint import load, save
from flexivid.model.config import FlexiDiTConfig
from flexivid.model.flexidit import FlexiDiT
from flexivid.model.recipe import Recipe
from flexivid.pretrained.shared.convert import load_shared
from flexivid.runtime.ranks import Ranks
from flexivid.training.modes import ModeChoice
from flexivid.training.objective import Objective

NOISE = Objective(path="linear", target="noise", loss_space="noise")


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    shape = {"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 3, "out_channels": 6}
    model = DiTTransformer2DModel(**shape, num_layers=2, sample_size=16, patch_size=4, num_embeds_ada_norm=10)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path / "dit")
    return tmp_path / "dit"


def test_the_first_step_starts_from_the_weights_and_changes_them(
    folder, tmp_path, make_data, make_module, make_trainer
):
    network = FlexiDiTConfig(modes=("1x4x4", "1x8x8", "2x8x8"))
    module = make_module(network=network, objective=NOISE, init_from=str(folder), mode_choice=ModeChoice())
    source = load_shared(folder, ["1x8x8", "2x8x8"])
    assert module.modes == source.config.modes
    x, time = torch.randn(2, 3, 1, 16, 16), torch.tensor([0.3, 0.9])
    with torch.no_grad():
        for mode in module.modes:
            expected = source(x, time, mode=mode)
            torch.testing.assert_close(module.network.eval()(x, time, mode=mode), expected, rtol=1e-5, atol=1e-5)
    before = {name: value.clone() for name, value in module.network.state_dict().items()}
    make_trainer(tmp_path / "run", 1).fit(module, make_data())
    changed = [name for name, value in module.network.state_dict().items() if not torch.equal(value, before[name])]
    assert {"embed.weight", "out.weight", "blocks.1.mlp_in.weight"} <= set(changed)
    assert module.recipe().process == ("linear", "noise")


@pytest.mark.parametrize(("fingerprint", "is_refused"), [("another", True), ("pixel", False), (None, False)])
def test_latents_of_another_codec_than_that_of_the_weights_are_refused(
    fingerprint, is_refused, tmp_path, make_data, make_module, make_trainer
):
    shape = FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("2x4x4", "2x8x8"), num_classes=10)
    save(FlexiDiT(shape), tmp_path / "start", recipe=Recipe(codec_fingerprint=fingerprint))
    source, output = make_data(windows="first"), str(tmp_path / "latents")
    request = EncodeRequest(source.collection, output, source.settings, CodecSettings())
    encode_collection(request, torch.device("cpu"), Ranks(0, 1))
    module = make_module(init_from=str(tmp_path / "start"))
    run = make_trainer(tmp_path / "run", 1, limit_val_batches=0)
    if is_refused:
        with pytest.raises(ValueError, match=r"of fingerprint pixel; expected another, .* model\.init_from"):
            run.fit(module, make_data(root=output))
    else:
        run.fit(module, make_data(root=output))


def test_a_checkpoint_is_refused_with_what_to_name_instead(tmp_path, make_data, make_module, make_trainer):
    make_trainer(tmp_path / "run", 1).fit(make_module(), make_data())
    file = tmp_path / "run" / "checkpoints" / "last.ckpt"
    for source, got in ((file, "a checkpoint"), (tmp_path / "run", "a run with nothing but checkpoints")):
        message = rf"got model\.init_from={source}, {got}; expected .* with model\.safetensors; .* flexivid\.save\("
        with pytest.raises(ValueError, match=message):
            make_module(init_from=str(source))
    averaged = load(file)
    save(averaged, tmp_path / "start")  # as the message says
    module = make_module(init_from=str(tmp_path / "start"))
    for name, value in module.network.state_dict().items():
        assert torch.equal(value, averaged.state_dict()[name])


def test_a_converted_pipeline_records_its_codec(folder, tmp_path):
    folder.rename(tmp_path / "transformer")
    (tmp_path / "model_index.json").write_text("{}")
    assert load_shared(tmp_path).recipe.codec_fingerprint is None
    AutoencoderKL(block_out_channels=(32,), latent_channels=3).save_pretrained(tmp_path / "vae")
    fingerprint = build_codec(str(tmp_path / "vae")).fingerprint
    assert load_shared(tmp_path).recipe.codec_fingerprint == fingerprint
