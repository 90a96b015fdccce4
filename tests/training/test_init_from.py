"""A run may start from pre-trained weights, and trains them in all modes."""

import pytest
import torch
from diffusers import DiTTransformer2DModel

from flexivid.model.config import FlexiDiTConfig
from flexivid.pretrained.shared.convert import load_shared
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
