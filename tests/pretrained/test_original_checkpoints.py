"""Published weights, under their published names, give what the published network computes."""

import argparse

import pytest
import torch

from flexivid.pretrained.original_checkpoints import load_plain
from tests.pretrained.families import CASES, build, output
from tests.reference.dit import published_forward, sinusoids, table_of

WIDTH, HEADS, PATCH, SIDE, FRAMES = 16, 2, 2, 4, 3


def published(*, video: bool, classes: int = 5) -> dict[str, torch.Tensor]:
    """Random weights of a tiny DiT (3 blocks) or Latte (4 blocks), with 3 channels in and 6 out."""
    torch.manual_seed(0)

    def linear(name: str, inputs: int, outputs: int) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": torch.randn(outputs, inputs) / inputs**0.5, f"{name}.bias": torch.randn(outputs)}

    weights = linear("t_embedder.mlp.0", 256, WIDTH) | linear("t_embedder.mlp.2", WIDTH, WIDTH)
    weights |= linear("final_layer.linear", WIDTH, 6 * PATCH**2)
    weights |= linear("final_layer.adaLN_modulation.1", WIDTH, 2 * WIDTH)
    for number in range(4 if video else 3):
        sizes = {"attn.qkv": (1, 3), "attn.proj": (1, 1), "mlp.fc1": (1, 4), "mlp.fc2": (4, 1)}
        for name, (inputs, outputs) in (sizes | {"adaLN_modulation.1": (1, 6)}).items():
            weights |= linear(f"blocks.{number}.{name}", inputs * WIDTH, outputs * WIDTH)
    weights |= {"x_embedder.proj.weight": torch.randn(WIDTH, 3, PATCH, PATCH), "pos_embed": table_of(SIDE // 2, WIDTH)}
    weights |= {"x_embedder.proj.bias": torch.randn(WIDTH)}
    if classes:
        weights["y_embedder.embedding_table.weight"] = torch.randn(classes + 1, WIDTH)
    if video:
        weights["temp_embed"] = sinusoids(torch.arange(FRAMES), WIDTH)[None]
    return weights


def saved(content, folder):
    torch.save(content, folder / "weights.pt")
    return folder / "weights.pt"


@pytest.mark.parametrize(("video", "classes"), [(False, 5), (True, 5), (True, 0)])
def test_loaded_weights_compute_what_the_published_network_does(video, classes, tmp_path) -> None:
    weights = published(video=video, classes=classes)
    model = load_plain(saved(weights, tmp_path), num_heads=HEADS)
    latent = torch.randn(2, 3, FRAMES if video else 1, SIDE, SIDE)
    time, label = torch.tensor([17, 901]), torch.tensor([0, classes])
    got = output(
        model, {"hidden_states": latent if video else latent[:, :, 0], "timestep": time, "class_labels": label}
    )
    expected = published_forward(weights, latent, time, label, HEADS)
    torch.testing.assert_close(got if video else got.unsqueeze(2), expected, rtol=1e-4, atol=1e-4)


def test_averaged_weights_of_a_training_checkpoint_are_preferred(tmp_path) -> None:
    ema, model = published(video=False), published(video=False)
    model["final_layer.linear.bias"] = model["final_layer.linear.bias"] + 1
    content = {"model": model, "ema": ema, "opt": {"state": {}}, "args": argparse.Namespace(model="DiT-XL/2")}
    loaded = load_plain(saved(content, tmp_path), num_heads=HEADS)
    assert torch.equal(loaded.proj_out_2.bias, ema["final_layer.linear.bias"])


@pytest.mark.slow
def test_latte_for_text_has_the_names_of_diffusers(tmp_path) -> None:
    native = build(next(case for case in CASES if case.name == "latte"))
    weights = {f"module.{name}": value for name, value in native.state_dict().items()}
    weights["module.caption_projection.y_embedding"] = torch.zeros(120, 16)
    loaded = load_plain(saved({"ema": weights}, tmp_path), num_heads=2)
    assert loaded.config.video_length == 16
    assert all(torch.equal(value, native.state_dict()[name]) for name, value in loaded.state_dict().items())


class Spell:
    """Something that is no tensor."""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda weights: {"a": torch.zeros(1)}, "without x_embedder or adaln_single"),
        (
            lambda weights: weights | {"extra.weight": torch.zeros(1)},
            r"do not fit .*1 unknown, .* e\.g\. extra\.weight",
        ),
        (lambda weights: weights | {"pos_embed": torch.zeros(1, 4, WIDTH)}, "not the sinusoids of DiT"),
        (lambda weights: {**weights, "spell": Spell()}, "cannot be read"),
        (lambda weights: [1, 2], "more than weights"),
    ],
)
def test_other_files_are_refused(change, says, tmp_path) -> None:
    with pytest.raises(ValueError, match=says):
        load_plain(saved(change(published(video=False)), tmp_path), num_heads=HEADS)


def test_a_width_that_nobody_published_needs_its_heads(tmp_path) -> None:
    with pytest.raises(ValueError, match="width 16 with an unknown number of heads"):
        load_plain(saved(published(video=True), tmp_path))
