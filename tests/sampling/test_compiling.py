"""A compiled network makes the same samples, is still counted, and has one graph for each kind of call."""

import copy

import pytest
import torch
import torch._inductor.config

from flexivid.model.frozen import has_compiled_stand_in
from flexivid.sampling.compiling import _calls, compile_forward, is_compiled, warm_up_plans
from flexivid.sampling.generate import generate
from flexivid.sampling.plan import plan_for
from flexivid.sampling.settings import Sampling


def test_sizes_of_calls_are_those_of_all_batches():
    assert _calls(num_videos=40, together=16, batch=4) == {4}
    assert _calls(num_videos=40, together=16, batch=16) == {16, 8}
    assert _calls(num_videos=3, together=16, batch=2) == {2, 1}
    assert _calls(num_videos=19, together=16, batch=2) == {2, 1}


@pytest.mark.parametrize("kind", ["model", "text_model", "long"])
def test_graphs_are_built_by_the_warm_up_and_none_later(kind, request, monkeypatch):
    model = request.getfixturevalue("model" if kind == "long" else kind)
    words = {"prompts": ["a red ball"]} if kind == "text_model" else {}
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: real(function, backend=backend, **options))
    options = {"precision": "fp32", "guidance_scale": 2.0, "guidance": "weak", "batch_size": 2}
    options |= {"size": (6, 8, 8)} if kind == "long" else {}
    plain = generate(model, 0.6, num_videos=3, **words, **options)
    settings = Sampling(**options).filled(model)._replace(text_tokens=3 if words else 0)
    compiled = compile_forward(model)
    assert compile_forward(compiled) is model
    assert is_compiled(model)
    assert warm_up_plans(model, [plan_for(model, settings, 0.6).schedule], settings, 3) > 0
    built = len(graphs)
    made = generate(model, 0.6, num_videos=3, **words, **options)
    assert len(graphs) == built
    assert made.measured_macs == plain.measured_macs
    torch.testing.assert_close(made.videos, plain.videos, atol=1e-4, rtol=0)


def test_a_model_with_hooks_inside_is_compiled_itself(model):
    sizes = []
    model.blocks[0].register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    compile_forward(model)
    assert (is_compiled(model), "forward" in vars(model), has_compiled_stand_in(model)) == (True, True, False)


@pytest.mark.slow
def test_inductor_follows_the_weights(model):
    options = {"precision": "fp32", "guidance_scale": 2.0, "num_videos": 2}
    before, plain = generate(model, 0.6, **options), copy.deepcopy(model)
    compile_forward(model)
    torch.testing.assert_close(generate(model, 0.6, **options).videos, before.videos, atol=1e-3, rtol=0)
    for each in (plain, model):
        torch.nn.init.constant_(each.out.bias, 0.5)
        torch.nn.init.normal_(each.blocks[0].mlp_out.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    after = generate(plain, 0.6, **options).videos
    assert (after - before.videos).abs().max() > 0.1
    torch.testing.assert_close(generate(model, 0.6, **options).videos, after, atol=1e-3, rtol=0)
    assert not torch._inductor.config.freezing
