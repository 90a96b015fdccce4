"""The real diffusers pipelines of the families, from tiny random parts, text encoder and tokenizer included."""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLCogVideoX,
    AutoencoderKLCosmos,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CosmosTextToWorldPipeline,
    DDIMScheduler,
    DiffusionPipeline,
    DiTPipeline,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    LattePipeline,
    LTXPipeline,
    UniPCMultistepScheduler,
    WanPipeline,
)
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

from tests.pretrained.families import CASES, TEXT, build

WORDS = {"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "cat": 4, "walks": 5}
SIZES = {"vocab_size": len(WORDS), "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}


def _tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel(WORDS, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def _t5() -> dict:
    return {"tokenizer": _tokenizer(), "text_encoder": T5EncoderModel(T5Config(**SIZES)).eval()}


def _transformer(name: str) -> torch.nn.Module:
    return build(next(case for case in CASES if case.name == name))


def wan_pipeline() -> DiffusionPipeline:
    """Text to video; 4 x 8 x 8 pixels a latent cell."""
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=3, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.0] * 4, latents_std=[1.0] * 4
    )
    return WanPipeline(
        tokenizer=_tokenizer(),
        text_encoder=UMT5EncoderModel(UMT5Config(**SIZES)).eval(),
        vae=vae.eval(),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        transformer=_transformer("wan2.1"),
    )


def ltx_pipeline() -> DiffusionPipeline:
    """Text to video; 8 x 32 x 32 pixels a latent cell."""
    torch.manual_seed(0)
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
    )
    return LTXPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae.eval(),
        transformer=_transformer("ltx"),
        **_t5(),
    )


def hunyuan_pipeline() -> DiffusionPipeline:
    """Text to video, two text encoders; 4 x 8 x 8 pixels a latent cell."""
    torch.manual_seed(0)
    llama = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 3}
    clip = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    words = {"vocab_size": len(WORDS), "pad_token_id": 0, "eos_token_id": 1}
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
    )
    return HunyuanVideoPipeline(
        text_encoder=LlamaModel(LlamaConfig(**llama, **words)).eval(),
        tokenizer=_tokenizer(),
        transformer=_transformer("hunyuan"),
        vae=vae.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=CLIPTextModel(CLIPTextConfig(**clip, **words)).eval(),
        tokenizer_2=_tokenizer(),
    )


def cogvideox_pipeline() -> DiffusionPipeline:
    """Text to video, 2B; 4 x 8 x 8 pixels a latent cell."""
    torch.manual_seed(0)
    vae = AutoencoderKLCogVideoX(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2
    )
    parts = {"vae": vae.eval(), "transformer": _transformer("cogvideox-2b"), "scheduler": CogVideoXDDIMScheduler()}
    return CogVideoXPipeline(**parts, **_t5())


def _image_vae() -> AutoencoderKL:
    torch.manual_seed(0)
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    return AutoencoderKL(block_out_channels=(8, 8, 8, 8), latent_channels=4, norm_num_groups=4, **kinds).eval()


def latte_pipeline() -> DiffusionPipeline:
    """Text to video; 8 x 8 pixels a latent cell, frames on their own."""
    parts = {"vae": _image_vae(), "transformer": _transformer("latte"), "scheduler": DDIMScheduler()}
    return LattePipeline(**parts, **_t5())


def dit_pipeline() -> DiffusionPipeline:
    """Class to image; 8 x 8 pixels a latent cell."""
    return DiTPipeline(transformer=_transformer("dit"), vae=_image_vae(), scheduler=DDIMScheduler())


class NoGuard(ModelMixin, ConfigMixin):
    """In the place of Cosmos's filter of prompts, which is a large model of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(1))  # what is saved must hold weights

    def check_text_safety(self, prompt: str) -> bool:
        return True


def cosmos_pipeline() -> DiffusionPipeline:
    """Text to video; 4 x 4 x 4 pixels a latent cell."""
    torch.manual_seed(0)
    vae = AutoencoderKLCosmos(
        latent_channels=4,
        encoder_block_out_channels=(8, 8, 8),
        decode_block_out_channels=(8, 8, 8),
        attention_resolutions=(8,),
        resolution=64,
        num_layers=1,
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
    )
    parts = {"vae": vae.eval(), "transformer": _transformer("cosmos"), "safety_checker": NoGuard()}
    return CosmosTextToWorldPipeline(**parts, scheduler=EDMEulerScheduler(final_sigmas_type="sigma_min"), **_t5())


PROMPT = {"prompt": "a cat walks", "output_type": "latent"}
SMALL = PROMPT | {"height": 48, "width": 80, "num_frames": 17, "max_sequence_length": 8}
PLAIN_TEMPLATE = {"prompt_template": {"template": "{}", "crop_start": 0}}
PIPELINES = {  # family: pipeline, arguments of a call, a weak mode
    "wan": (wan_pipeline, SMALL, "2x4x4"),
    "ltx": (ltx_pipeline, SMALL | {"height": 96, "width": 160, "num_frames": 33}, "2x2x2"),
    "hunyuan": (hunyuan_pipeline, SMALL | PLAIN_TEMPLATE, "2x4x4"),
    "cogvideox": (cogvideox_pipeline, SMALL | {"max_sequence_length": TEXT}, "2x4x4"),
    "latte": (
        latte_pipeline,
        PROMPT | {"height": 48, "width": 80, "video_length": 5},
        "2x4x4",
    ),
    "dit": (dit_pipeline, {"class_labels": [207], "output_type": "pt"}, "1x4x4"),
    "cosmos": (cosmos_pipeline, SMALL | {"height": 32, "width": 48}, "2x4x4"),
}
