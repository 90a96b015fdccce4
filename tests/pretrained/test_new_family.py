"""A new family is one description and one registration: all the rest works with it, from ``flexify`` to pipelines."""

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from flexivid.patching.shapes import PatchMode
from flexivid.pipelines.budget import apply_budget
from flexivid.pipelines.report import flexify_and_compare, report
from flexivid.pretrained.adapter import load_adapter, save_adapter
from flexivid.pretrained.cost import transformer_macs
from flexivid.pretrained.families.family import Family, Signature, Work
from flexivid.pretrained.families.registry import FAMILIES
from flexivid.pretrained.flexify import current_mode, set_mode
from tests.pretrained.families import disturb

WIDTH = 16


class ToyBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(self.to_q(x).tanh().mean(1, keepdim=True) + x)


class ToyTransformer(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self, in_channels: int = 4, out_channels: int = 4, num_layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Conv3d(in_channels, WIDTH, (1, 2, 2), (1, 2, 2))
        self.blocks = nn.ModuleList(ToyBlock() for _ in range(num_layers))
        self.unembed = nn.Linear(WIDTH, out_channels * 4)

    def forward(self, hidden_states: Tensor, timestep: Tensor) -> tuple[Tensor]:
        x = self.embed(hidden_states)
        grid = x.shape[2:]
        x = x.flatten(2).transpose(1, 2).contiguous() + timestep.view(-1, 1, 1) / 1000
        for block in self.blocks:
            x = block(x)
        x = self.unembed(x).unflatten(1, grid).unflatten(-1, (-1, 2, 2))  # b t h w c ph pw
        return (x.permute(0, 4, 1, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4),)


class ToyPipeline(DiffusionPipeline):
    def __init__(self, transformer: nn.Module, scheduler: DDIMScheduler) -> None:
        super().__init__()
        self.register_modules(transformer=transformer, scheduler=scheduler)

    @torch.no_grad()
    def __call__(self, num_inference_steps: int = 4) -> Tensor:
        self.scheduler.set_timesteps(num_inference_steps)
        latent = torch.randn(1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(0))
        for time in self.scheduler.timesteps:
            output = self.transformer(latent, time.view(1).float())[0]
            latent = self.scheduler.step(output, time, latent).prev_sample
        return latent


TOY = Family(
    class_name="ToyTransformer",
    signature=Signature(lambda config, text: {}),
    patch=lambda config: PatchMode(1, 2, 2),
    embed="embed",
    unembed="unembed",
    output_order="c ph pw pt",
    width=lambda config: WIDTH,
    lora=r"blocks\.\d+\.(to_q|out)",
    work=lambda config, grid, text: [Work(2 * config["num_layers"], grid.volume, WIDTH, WIDTH, adapted=True)],
)
MODES = ["1x4x4", "2x4x4"]


@pytest.fixture
def toy(monkeypatch) -> ToyTransformer:
    monkeypatch.setitem(FAMILIES, TOY.class_name, TOY)
    torch.manual_seed(0)
    model = ToyTransformer().eval()
    assert flexify_and_compare(model, MODES, rank=1) == 0
    disturb(model)
    return model


def test_it_is_flexified_saved_and_costed(toy, tmp_path) -> None:
    assert load_adapter(toy, save_adapter(toy, tmp_path)) is toy
    for mode in ("native", *MODES):
        set_mode(toy, mode)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            output = toy(torch.randn(1, 4, 2, 8, 8), torch.tensor([500.0]))[0]
        assert output.shape == (1, 4, 2, 8, 8)
        assert transformer_macs(toy, (2, 8, 8), mode, text_tokens=0) == counter.get_total_flops() // 2
    lines = report(toy, (2, 8, 8), text_tokens=0)
    assert lines[0].startswith("ToyTransformer: ")
    assert [line.split()[0] for line in lines if "a call" in line] == ["native", *MODES]


def test_a_pipeline_of_it_samples_under_a_budget(toy) -> None:
    pipe = ToyPipeline(toy, DDIMScheduler())
    native = pipe()
    assert torch.equal(pipe(), native)
    with apply_budget(pipe, 0.6) as applied:
        weak = pipe()
    assert not torch.equal(weak, native)
    assert applied.plan is not None
    assert 0.4 < applied.plan.budget <= 0.6
    assert current_mode(toy) == "native"
    assert torch.equal(pipe(), native)
