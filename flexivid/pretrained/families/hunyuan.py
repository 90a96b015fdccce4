"""HunyuanVideo: ``HunyuanVideoTransformer3DModel``. Joint attention of video and text, rotary positions per call.

LoRA is on what video tokens pass through; the text stream of the dual blocks stays as it is. Models that replace the
tokens of the first frame by an image (``token_replace``) take no weak modes in time: a patch would be half condition.
"""

from __future__ import annotations

from torch import Tensor

from flexivid.patching.shapes import PatchMode, Size3
from flexivid.pretrained.families.family import Config, Family, Signature, Work, heads_width
from flexivid.pretrained.families.positions import PositionModule, rotary

GUIDANCE = 6000.0  # guidance scale 6, as the pipeline passes it


class HunyuanPositions(PositionModule):
    """Rotary embeddings of patch centres, in the place of ``HunyuanVideoRotaryPosEmbed``."""

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        features: tuple[int, int, int] = tuple(self.native.rope_dim)
        return rotary(self.centres(hidden_states), features, float(self.native.theta))  # (n, e)


def _inputs(config: Config, text: int) -> dict[str, tuple]:
    inputs: dict[str, tuple] = {
        "encoder_hidden_states": (text, config["text_embed_dim"]),
        "encoder_attention_mask": ("ones", text),
        "pooled_projections": (config["pooled_projection_dim"],),
    }
    return {**inputs, "guidance": ("constant", GUIDANCE)} if config["guidance_embeds"] else inputs


def _work(config: Config, grid: Size3, text: int) -> list[Work]:
    n, d, hidden = grid.volume, heads_width(config), int(heads_width(config) * config["mlp_ratio"])
    tokens = n + text
    refiner, dual, single = config["num_refiner_layers"], config["num_layers"], config["num_single_layers"]
    replace = config["image_condition_type"] == "token_replace"  # the first frame has a time and modulation of its own
    times = 1 + bool(config["guidance_embeds"]) + replace
    return [
        Work(1, 1, 256 + config["text_embed_dim"] + 2 * d, d),  # refiner of the text: time and mean text
        Work(1, text, config["text_embed_dim"], d),
        Work(refiner * 12, text, d, d),  # q k v out; feed-forward of width 4 d
        Work(refiner * 2, text, d, text),
        Work(refiner, 1, d, 2 * d),
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
    signature=Signature(_inputs, is_flow=True, usual_size=lambda config: (33, 90, 160)),
    patch=lambda config: PatchMode(config["patch_size_t"], config["patch_size"], config["patch_size"]),
    embed="x_embedder.proj",
    unembed="proj_out",
    output_order="c pt ph pw",
    lora=r"transformer_blocks\.\d+\.(attn\.(to_q|to_k|to_v|to_out\.0)|ff\.net\.(0\.proj|2))"
    r"|single_transformer_blocks\.\d+\.(attn\.(to_q|to_k|to_v)|proj_mlp|proj_out)",
    work=_work,
    axes=lambda config: "hw" if config["image_condition_type"] == "token_replace" else "thw",
    positions=lambda model, fold: {"rope": HunyuanPositions(model.get_submodule("rope"), fold)},
)
