"""The real diffusers pipelines of the families, from tiny random parts, text encoder and tokenizer included."""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    LTXPipeline,
    UniPCMultistepScheduler,
    WanPipeline,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

from tests.pretrained.families import CASES, build

WORDS = {"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "cat": 4, "walks": 5}
SIZES = {"vocab_size": len(WORDS), "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}


def _tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel(WORDS, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


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
        transformer=build(CASES[0]),
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
        text_encoder=T5EncoderModel(T5Config(**SIZES)).eval(),
        tokenizer=_tokenizer(),
        transformer=build(CASES[1]),
    )


PIPELINES = {  # family: pipeline, arguments of a call, a weak mode
    "wan": (wan_pipeline, {"height": 48, "width": 80, "num_frames": 17}, "2x4x4"),
    "ltx": (ltx_pipeline, {"height": 96, "width": 160, "num_frames": 33}, "2x2x2"),
}
