"""HunyuanVideo: ``HunyuanVideoTransformer3DModel``. Joint attention of video and text, rotary positions per call.

LoRA is on what video tokens pass through; the text stream of the dual blocks stays as it is. Models that replace the
tokens of the first frame by an image (``token_replace``) take no weak modes in time: a patch would be half condition.
"""

from __future__ import annotations

from torch import Tensor, nn

from flexivid.patching.shapes import PatchMode, Size3, grid_of
from flexivid.pretrained.families.family import Config, Family, Fold, Work
from flexivid.pretrained.families.rotary import native_centres, rotary


class HunyuanPositions(nn.Module):
    """Rotary embeddings of patch centres, in the place of ``HunyuanVideoRotaryPosEmbed``."""

    def __init__(self, native: nn.Module, how: Fold) -> None:
        super().__init__()
        self.features: tuple[int, int, int] = tuple(native.rope_dim)  # type: ignore[arg-type]
        self.theta = float(native.theta)  # type: ignore[arg-type]
        self.how = how

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        grid = grid_of(Size3(*hidden_states.shape[2:]), self.how.native)
        return rotary(native_centres(grid, self.how.growth, hidden_states.device), self.features, self.theta)  # (n, e)


def _positions(model: nn.Module, how: Fold) -> dict[str, nn.Module]:
    return {"rope": HunyuanPositions(model.get_submodule("rope"), how)}


def _width(config: Config) -> int:
    return config["num_attention_heads"] * config["attention_head_dim"]


def _refiner_work(config: Config, text: int) -> list[Work]:
    d, depth = _width(config), config["num_refiner_layers"]
    return [
        Work(1, 1, 256 + config["text_embed_dim"] + 2 * d, d),  # time and mean text
        Work(1, text, config["text_embed_dim"], d),
        Work(depth * 12, text, d, d),  # q k v out; feed-forward of width 4 d
        Work(depth * 2, text, d, text),
        Work(depth, 1, d, 2 * d),
    ]


def _work(config: Config, grid: Size3, text: int) -> list[Work]:
    n, d, hidden = grid.volume, _width(config), int(_width(config) * config["mlp_ratio"])
    tokens = n + text
    dual, single = config["num_layers"], config["num_single_layers"]
    replace = config["image_condition_type"] == "token_replace"  # the first frame has a time and modulation of its own
    times = 1 + bool(config["guidance_embeds"]) + replace
    return [
        *_refiner_work(config, text),
        Work(times, 1, 256 + d, d),  # time, guidance
        Work(1, 1, config["pooled_projection_dim"] + d, d),
        Work(dual, 1, d, (12 + 6 * replace) * d),  # modulation of both streams
        Work(dual * 4, n, d, d, adapted=True),  # q k v out of the video
        Work(dual * 4, text, d, d),  # and of the text
        Work(dual * 2, n, d, hidden, adapted=True),
        Work(dual * 2, text, d, hidden),
        Work(single, 1, d, (3 + 3 * replace) * d),
        Work(single * 3, tokens, d, d, adapted=True),  # q k v
        Work(single, tokens, d, hidden, adapted=True),
        Work(single, tokens, d + hidden, d, adapted=True),
        Work((dual + single) * 2, tokens, d, tokens),  # scores, weighted sums
        Work(1, 1, d, 2 * d),
    ]


HUNYUAN = Family(
    class_name="HunyuanVideoTransformer3DModel",
    patch=lambda config: PatchMode(config["patch_size_t"], config["patch_size"], config["patch_size"]),
    width=_width,
    embed="x_embedder.proj",
    unembed="proj_out",
    output_order="c pt ph pw",
    lora=r"transformer_blocks\.\d+\.(attn\.(to_q|to_k|to_v|to_out\.0)|ff\.net\.(0\.proj|2))"
    r"|single_transformer_blocks\.\d+\.(attn\.(to_q|to_k|to_v)|proj_mlp|proj_out)",
    work=_work,
    axes=lambda config: "hw" if config["image_condition_type"] == "token_replace" else "thw",
    positions=_positions,
)
