"""A VideoDiT whose temporal blocks are closed is the DiT on every frame; it is saved and loaded as in diffusers."""

import torch

from flexivid.pretrained.families.video_dit import VideoDiT, set_time_shift
from tests.pretrained.families import CASES, build, output


def test_with_closed_temporal_gates_it_is_the_dit_on_every_frame_and_survives_the_disk(tmp_path) -> None:
    dit = build(next(case for case in CASES if case.name == "dit"))
    settings = {"num_attention_heads": 2, "attention_head_dim": 12, "out_channels": 8, "sample_size": 8}
    model = VideoDiT(num_layers=2, video_length=3, norm_eps=dit.config.norm_eps, **settings).eval()
    model.load_state_dict(dit.state_dict(), strict=False)
    set_time_shift(model, 1)  # of the embedding of times: 1 in diffusers
    for block in model.temporal_transformer_blocks:
        for parameter in block.norm1.linear.parameters():
            torch.nn.init.zeros_(parameter)
    video = torch.randn(2, 4, 3, 8, 8)
    conditions = {"timestep": torch.tensor([3, 700]), "class_labels": torch.tensor([1, 2])}
    frames = [output(dit, {"hidden_states": video[:, :, frame], **conditions}) for frame in range(3)]
    torch.testing.assert_close(output(model, {"hidden_states": video, **conditions}), torch.stack(frames, dim=2))
    set_time_shift(model, 0)
    arguments = {"hidden_states": video, **conditions}
    model.save_pretrained(tmp_path)
    loaded = VideoDiT.from_pretrained(tmp_path).eval()
    assert torch.equal(output(loaded, arguments), output(model, arguments))
