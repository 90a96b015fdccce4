"""DiT and Latte as a FlexiDiT whose weights all modes share: native outputs are those of diffusers."""

import json

import pytest
import torch
from diffusers import DiTTransformer2DModel, LatteTransformer3DModel

from flexivid.budget.cost import human, macs
from flexivid.convert import main
from flexivid.model.checkpoint import load, save
from flexivid.model.conditioning import Condition, Text
from flexivid.model.config import FlexiDiTConfig
from flexivid.model.flexidit import FlexiDiT
from flexivid.patching.position import sinusoids
from flexivid.pretrained.families.video_dit import VideoDiT, set_time_shift
from flexivid.pretrained.flexify import flexify, set_mode
from flexivid.pretrained.more_modes import add_modes
from flexivid.pretrained.shared.convert import difference, load_shared, shape_of, share, to_flexidit
from flexivid.pretrained.shared.start import fitted_shape, network_from, shape_from

HEADS = {"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 8}
TIMESTEPS = torch.tensor([0, 17, 999])


def randomised(model, *, is_shared=False):
    """Random values everywhere, also where layers start at zero; the same embedder in all blocks if asked for."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        scale = 0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
        parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    if isinstance(model, VideoDiT):
        model.temporal_positions.weight.data = sinusoids(torch.arange(4), 24).float()[None]
    embedders = [module for name, module in model.named_modules() if name.endswith("norm1.emb")]
    for embedder in embedders[1:] if is_shared else []:
        embedder.load_state_dict(embedders[0].state_dict())
    return model.eval()


def dit(**changes):
    return DiTTransformer2DModel(**{**HEADS, "num_layers": 3, "sample_size": 8, "num_embeds_ada_norm": 5, **changes})


def latte(side=8, **changes):
    settings = {"attention_bias": True, "activation_fn": "gelu-approximate", "norm_type": "ada_norm_single"}
    settings |= {"norm_elementwise_affine": False, "norm_eps": 1e-6, "caption_channels": 16, "cross_attention_dim": 24}
    shape = {"num_layers": 2, "sample_size": side, "patch_size": 2, "video_length": 4}
    return LatteTransformer3DModel(**(HEADS | settings | shape | changes))


def original_dit():
    model = dit()
    set_time_shift(model, 0)
    return model


def class_latte():
    return VideoDiT(**HEADS, num_layers=2, sample_size=8, video_length=4, num_embeds_ada_norm=5)


MODELS = {
    "dit": dit,
    "dit of exact gelu, without biases": lambda: dit(activation_fn="gelu", attention_bias=False),
    "dit with the original's time embedding": original_dit,
    "latte of classes": class_latte,
    "latte of text": latte,
    "latte of large pictures": lambda: latte(128),
}


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_the_native_mode_is_the_network_of_diffusers(name, is_shared):
    model = randomised(MODELS[name](), is_shared=is_shared)
    flexible, side = to_flexidit(model), model.config.sample_size
    assert flexible.config.block_conditioning == ("text" not in name and "large" not in name and not is_shared)
    video = torch.randn(3, 4, 1 if name.startswith("dit") else 4, side, side)
    if isinstance(model, LatteTransformer3DModel):
        text = torch.randn(3, 6, 16)
        inputs, condition = {"encoder_hidden_states": text}, Condition(text=Text(text))
    else:
        labels = torch.tensor([0, 4, 5])  # 5 = the null class
        inputs, condition = {"class_labels": labels}, Condition(labels)
    x = video[:, :, 0] if name.startswith("dit") else video
    with torch.no_grad():
        expected = model(x, timestep=TIMESTEPS, **inputs).sample
        output = flexible(video, (TIMESTEPS + 1) / 1000, condition)
    assert expected.abs().mean() > 0.1
    torch.testing.assert_close(output.view_as(expected), expected, rtol=1e-5, atol=1e-5)


def test_the_xl_shape_takes_every_weight():
    blocks = 28
    with torch.device("meta"):
        image = DiTTransformer2DModel(out_channels=8, num_layers=blocks, norm_eps=1e-6)
        video = VideoDiT(out_channels=8, num_layers=blocks // 2, num_embeds_ada_norm=101)
        heads = {"num_attention_heads": 16, "attention_head_dim": 72, "cross_attention_dim": 1152}
        text = latte(64, **heads, num_layers=blocks, caption_channels=4096, video_length=16)
    for model, depth in ((image, blocks), (video, blocks), (text, 2 * blocks)):
        flexible = to_flexidit(model)  # refuses a name without a layer, and a layer without a weight
        assert flexible.embed.weight.is_meta
        assert (flexible.config.width, flexible.config.depth) == (1152, depth)


def test_a_weight_without_a_layer_is_refused():
    model = dit()
    model.register_parameter("more", torch.nn.Parameter(torch.zeros(1)))
    with pytest.raises(ValueError, match="got weights with more"):
        to_flexidit(model)


@pytest.fixture
def folder(tmp_path):
    """A pipeline's transformer and scheduler, and the names of its classes."""
    randomised(dit(), is_shared=True).save_pretrained(tmp_path / "transformer")
    (tmp_path / "scheduler").mkdir()
    settings = {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02, "prediction_type": "epsilon"}
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(settings))
    names = {str(number): f"class {number}" for number in range(5)}
    (tmp_path / "model_index.json").write_text(json.dumps({"id2label": names}))
    return tmp_path


def test_loading_adds_modes_and_knows_how_to_sample(folder, tmp_path):
    model = load_shared(folder, ["1x4x4"])
    assert list(map(str, model.config.modes)) == ["1x2x2", "1x4x4"]
    assert model.config.out_channels == 4  # without the learned variance
    assert (*model.recipe.process, model.recipe.size) == ("linear", "noise", (1, 8, 8))
    assert model.recipe.class_names[4] == "class 4"
    stored = load(save(model, tmp_path / "saved"))
    x, time = torch.randn(2, 4, 1, 8, 8), torch.tensor([0.4, 0.9])
    with torch.no_grad():
        assert torch.equal(stored(x, time, mode="1x4x4"), model(x, time, mode="1x4x4"))
        assert difference(dit().from_pretrained(folder / "transformer"), model) < 1e-5


def test_channels_of_a_learned_variance_are_dropped_where_nothing_mixes_them(build_model):
    model = build_model(in_channels=4, out_channels=8)
    x, time = torch.randn(2, 4, 2, 8, 8), torch.tensor([0.4, 0.9])
    with torch.no_grad():
        assert torch.equal(share(model, "source")(x, time), model(x, time)[:, :4])
    plain = build_model(in_channels=4, output_conv=True)
    assert share(plain, "source", ["2x8x8"]).config.output_conv


def test_a_convolution_that_mixes_a_learned_variance_into_the_rest_is_refused(build_model, tmp_path):
    model = build_model(in_channels=4, out_channels=8, output_conv=True)
    folder, says = save(model, tmp_path / "model"), "output_conv, 4 input and 8 output channels; expected"
    with pytest.raises(ValueError, match=says):
        load_shared(folder, ["2x8x8"])
    with pytest.raises(ValueError, match=says):  # no weights are read: a training says so before it starts
        shape_from(folder, FlexiDiTConfig(in_channels=4, modes=("1x2x2", "2x4x4")))


def test_large_weights_are_in_memory_once():
    model = randomised(latte())
    flexible = share(model, "latte", ["1x4x4"])
    sources = {value.untyped_storage().data_ptr() for value in model.state_dict().values()}
    weights = flexible.state_dict().items()
    copied = {name for name, value in weights if value.untyped_storage().data_ptr() not in sources}
    grown = {"embed.weight", "out.weight", "out.bias"}
    assert copied == grown | {"mode_embedding", "text.null", "conditioning.label.weight", "conditioning.mode"}
    larger = add_modes(flexible, ["2x4x4"])  # another model, which may be trained beside the old one
    assert larger.blocks[0].mlp_in.weight.data_ptr() != flexible.blocks[0].mlp_in.weight.data_ptr()


def test_a_scheduler_of_another_process_is_refused(folder):
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({"prediction_type": "v_prediction"}))
    with pytest.raises(ValueError, match=r"v_prediction.*expected"):
        load_shared(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"activation_fn": "geglu"}, "activation_fn='geglu'"), ({"norm_elementwise_affine": True}, "norm_elementwise")],
)
def test_parts_that_a_flexidit_lacks_are_refused(change, says):
    with pytest.raises(ValueError, match=says):
        to_flexidit(latte(**change))


def test_learned_positions_of_frames_are_refused():
    model = class_latte()
    model.temporal_positions.weight.data.normal_()
    with pytest.raises(ValueError, match="learned positions"):
        to_flexidit(model)


def test_classes_without_shared_weights_are_told_to_use_flexify():
    with pytest.raises(ValueError, match="got a Linear; expected DiT"):
        to_flexidit(torch.nn.Linear(2, 2))


def test_weak_modes_pass_on_the_detail_that_their_patches_lose():
    model = load_with_zero_output(("1x2x2", "2x4x4"))
    x, time = torch.randn(3, 4, 4, 8, 8), torch.tensor([0.8, 0.9, 1.0])
    with torch.no_grad():
        assert model(x, time).abs().max() == 0
        output = model(x, time, mode="2x4x4")
    means = torch.nn.functional.avg_pool3d(x, (2, 2, 2))
    assert torch.nn.functional.avg_pool3d(output, (2, 2, 2)).abs().max() < 1e-6
    sigma = model.detail_process.alpha_sigma(time)[1].view(-1, 1, 1, 1, 1)
    noise = (x - means.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)) / sigma
    torch.testing.assert_close(
        output, noise, rtol=0.02, atol=0.02
    )  # data of no detail at all; the estimate allows some


def load_with_zero_output(modes):
    config = FlexiDiTConfig(width=32, depth=1, num_heads=2, in_channels=4, modes=modes, weak_detail="linear noise")
    return FlexiDiT(config).eval()


def test_distillation_takes_it_as_well(folder):
    model = load_shared(folder)
    x, time = torch.randn(1, 4, 1, 8, 8), torch.tensor([0.5])
    with torch.no_grad():
        before = model(x, time)
        flexify(model, ["1x4x4"], rank=2)
        set_mode(model, "1x4x4")
        assert model(x, time).shape == x.shape
        set_mode(model, "native")
        assert torch.equal(model(x, time), before)


def test_a_training_starts_from_it(folder):
    asked = FlexiDiTConfig(modes=("1x2x2", "1x4x4"), in_channels=4, num_classes=3, given_frames=True)
    network = network_from(folder, asked, ("linear", "noise"))
    shape, source = shape_from(folder, asked), load_shared(folder)
    assert network.config == shape
    assert (shape.width, shape.num_classes, shape.given_frames) == (24, 3, True)
    x, time = torch.randn(2, 4, 1, 8, 8), torch.tensor([0.3, 0.8])
    with torch.no_grad():  # all classes start as the null class
        expected = source(x, time, Condition(torch.tensor([5, 5])))
        output = network(x, time, Condition(torch.tensor([0, 3])))
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)


def test_another_process_is_refused(folder):
    with pytest.raises(ValueError, match=r"path flow, target x0; expected path linear, target noise"):
        network_from(folder, FlexiDiTConfig(in_channels=4, modes=("1x2x2",)), ("flow", "x0"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"in_channels": 3}, "got data with 3 channels of latents; expected 4"),
        ({"text_channels": 8}, "got data with 8 features of text"),
        ({"modes": ("1x4x4", "1x2x2")}, "expected 1x2x2 first"),
    ],
)
def test_data_and_modes_that_do_not_fit_are_refused(changes, says):
    weights = FlexiDiTConfig(in_channels=4, modes=("1x2x2",))
    with pytest.raises(ValueError, match=says):
        fitted_shape(weights, FlexiDiTConfig(**{"in_channels": 4, "modes": ("1x2x2", "1x4x4"), **changes}))


def test_the_program_writes_a_model_to_train(folder, tmp_path, capsys):
    main([str(folder), "--modes", "1x4x4", "--shared", "--output-dir", str(tmp_path / "out"), "--json", "-"])
    told = capsys.readouterr().out
    assert "largest absolute difference from the source" in told
    assert load(tmp_path / "out").config.modes[1] == (1, 4, 4)
    main([str(folder), "--modes", "1x4x4", "--shared", "--dry-run"])
    assert "1x4x4" in capsys.readouterr().out


def test_the_program_counts_the_text(tmp_path, capsys):
    latte().save_pretrained(tmp_path / "latte")
    words = [str(tmp_path / "latte"), "--modes", "1x4x4", "--shared", "--dry-run", "--text-tokens", "77", "--json", "-"]
    main(words)
    lines = capsys.readouterr().out.splitlines()
    native = macs(share(latte(), "latte").config, (4, 8, 8), text_tokens=77)
    assert json.loads(lines[-1])["macs"]["1x2x2"] == native
    assert native < macs(shape_of(latte()), (4, 8, 8), text_tokens=77)  # a learned variance is not kept
    assert any(line.split()[:1] == ["1x2x2"] and human(native) in line for line in lines)


@pytest.mark.parametrize("words", [["--rank", "4"], ["--device", "cpu"], ["--skip", "--precision", "bf16"]])
def test_options_of_adapters_are_refused(folder, words, capsys):
    with pytest.raises(SystemExit):
        main([str(folder), "--modes", "1x4x4", "--shared", *words])
    flags = ", ".join(word for word in words if word.startswith("--"))
    assert f"got {flags} with --shared, where it has no effect" in capsys.readouterr().err
