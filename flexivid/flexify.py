"""Give a pre-trained video transformer weak modes: ``python -m flexivid.flexify MODEL --modes 1x4x4 2x4x4``.

Parses, calls the pipeline, prints. The public function of the same name is ``flexivid.pretrained.adapter.flexify``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from flexivid.runtime.errors import plain_errors
from flexivid.runtime.program import add_files, program_parser, resolved, words_of

EXAMPLES = """examples:
  python -m flexivid.flexify Wan-AI/Wan2.1-T2V-1.3B-Diffusers --modes 2x2x2 1x4x4 2x4x4 --output wan_modes
  python -m flexivid.flexify my_pipeline --modes 1x4x4 --rank 64 --skip --output modes --prompts prompts.txt
  python -m flexivid.flexify my_pipeline --modes 1x4x4 2x4x4 --size 21 60 104 --dry-run    costs only, no weights read

next: python -m flexivid.train fit --config conf/distill_wan.yaml    (train what was added)
"""


def build_parser() -> ArgumentParser:
    """All options; dashes and underscores are the same."""
    parser = program_parser("flexify", __doc__.splitlines()[0], EXAMPLES)
    add = parser.add_argument
    add(
        "model",
        help="diffusers folder (pipeline or transformer), Hugging Face hub id, original .pt of DiT or Latte, or folder"
        " of a trained FlexiDiT",
    )
    add("--modes", nargs="+", required=True, help="weak modes, frames x rows x columns of the latent, e.g. 1x4x4 2x4x4")
    add("--output", help="adapter folder to write (default: none is written)")
    add("--prompts", help="file of prompts, one a line: what distillation reads is written to OUTPUT/prompts")
    add("--rank", type=int, default=16, help="rank of the LoRA; 0 = none")
    add("--skip", action="store_true", help="add a small network around the transformer, zero at first")
    add("--precision", default="fp32", help="precision of the weights: fp32, bf16 or fp16")
    add_files(add)
    add("--subfolder", help="diffusers: folder of the transformer in a pipeline, e.g. transformer_2")
    add("--device", help="cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    add(
        "--size", type=int, nargs=3, help="latent size for the costs: frames rows columns (default: the family's usual)"
    )
    add("--text_tokens", type=int, default=512, help="length of the text for the costs")
    add("--dry_run", action="store_true", help="read the configuration only: print costs and memory, and stop")
    add("--json", action="store_true", help="last line of stdout is one JSON object")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments (default: the command line's)."""
    options = build_parser().parse_args(words_of(argv))
    with plain_errors():
        run(resolved(options))


def run(options: Namespace) -> None:
    """Load, compare, say so, write."""
    from flexivid.data.lists.text import read_lines
    from flexivid.pipelines import report as pretrained
    from flexivid.pretrained.adapter import save_adapter
    from flexivid.pretrained.flexify import flexify
    from flexivid.pretrained.load import load_transformer
    from flexivid.pretrained.model_files import files_of
    from flexivid.runtime.device import DTYPES, pick_device

    _check(options)
    prompts = read_lines(options.prompts) if options.prompts else []
    if options.prompts and not prompts:
        raise ValueError(f"got --prompts {options.prompts}, which is empty; expected one prompt a line; write some")
    dtype = DTYPES[options.precision]
    settings, files = {"rank": options.rank, "skip": options.skip}, files_of(options)
    model = load_transformer(options.model, dtype=dtype, empty=options.dry_run, files=files)
    difference = None
    if options.dry_run:
        flexify(model, options.modes, **settings)
    else:
        model.to(pick_device(options.device))
        difference = pretrained.flexify_and_compare(model, options.modes, **settings)
        print(f"native mode, largest absolute difference before and after: {difference:g}")
    size = tuple(options.size) if options.size else None
    print("\n".join(pretrained.report(model, size, text_tokens=options.text_tokens)))
    if difference:
        raise ValueError(
            f"got a native output that differs by {difference:g}; expected 0; nothing is written: report it"
        )
    written = None
    if options.output and not options.dry_run:
        written = str(save_adapter(model, options.output))
        print(f"adapter written to {written}, not trained yet")
        if prompts:
            _write_prompts(options, model, prompts, dtype)
    if options.json:
        print(json.dumps(_summary(options, model, size, difference, written)))


def _check(options: Namespace) -> None:
    from flexivid.runtime.device import DTYPES

    if options.prompts and (not options.output or options.dry_run or not Path(options.prompts).is_file()):
        raise ValueError(f"got --prompts {options.prompts}; expected a file, and --output to write to; give both")
    if options.prompts and options.subfolder not in (None, "transformer"):
        raise ValueError(
            f"got --prompts with --subfolder {options.subfolder}; expected prompts of the pipeline's first transformer,"
            " whose texts serve both; write them without --subfolder"
        )
    if options.precision not in DTYPES:
        raise ValueError(f"got --precision {options.precision}; expected one of {', '.join(DTYPES)}; change it")


def _write_prompts(options: Namespace, model: Any, prompts: Sequence[str], dtype: Any) -> None:
    """Text embeddings where distillation walks the paths itself, recorded calls elsewhere."""
    from flexivid.pipelines.record import record_calls, record_texts
    from flexivid.pipelines.sample import whole_pipeline
    from flexivid.pretrained.model_files import files_of
    from flexivid.pretrained.signature import form_of

    pipe = whole_pipeline(options.model, dtype=dtype, files=files_of(options), transformer=model)
    pipe.to(next(model.parameters()).device)
    record = record_texts if form_of(model).is_flow else record_calls
    print(f"{len(prompts)} prompts written to {record(pipe, Path(options.output) / 'prompts', prompts)}")


def _summary(
    options: Namespace, model: Any, size: Any, difference: float | None, written: str | None
) -> dict[str, Any]:
    from flexivid.pipelines.plan import costs_of, least_budget
    from flexivid.pipelines.report import needs_of
    from flexivid.pretrained.families.family import config_of
    from flexivid.pretrained.signature import form_of

    size = size or form_of(model).size(config_of(model))
    costs = costs_of(model, size, options.text_tokens)
    facts = {"difference": difference, "macs": costs, "least_budget": least_budget(costs), "output": written}
    return facts | needs_of(model, size, options.text_tokens)._asdict()


if __name__ == "__main__":
    main()
