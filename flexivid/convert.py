"""Give a pre-trained video transformer weak modes: ``python -m flexivid.convert MODEL --modes 1x4x4 2x4x4``.

Parses, calls ``flexivid.flexify``, prints. ``python -m flexivid.flexify`` is the same program.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from flexivid.runtime.program import (
    ProgramParser,
    add_files,
    add_json,
    flags_set,
    program_options,
    program_parser,
    write_json,
)

OF_ADAPTERS = ("rank", "skip", "detail", "prompts", "precision", "device")  # options that --shared refuses

EXAMPLES = """examples:
  python -m flexivid.convert Wan-AI/Wan2.1-T2V-1.3B-Diffusers --modes 2x2x2 1x4x4 2x4x4 --output-dir wan_modes
  python -m flexivid.convert my_pipeline --modes 1x4x4 --rank 64 --skip --output-dir modes --prompts prompts.txt
  python -m flexivid.convert my_pipeline --modes 1x4x4 2x4x4 --latent-size 21 60 104 --dry-run    costs, no weights read
  python -m flexivid.convert facebook/DiT-XL-2-256 --modes 1x4x4 --shared --output-dir dit_flexible

next: python -m flexivid.train fit --config conf/distill_wan.yaml    (train what was added)
  after --shared: python -m flexivid.train fit --config RECIPE --config conf/model/init_from.yaml --model.init_from DIR
"""


def build_parser() -> ProgramParser:
    """Return the parser with all options."""
    parser = program_parser("convert", __doc__.splitlines()[0], EXAMPLES)
    add = parser.add_argument
    add(
        "model",
        help="diffusers folder (pipeline or transformer), Hugging Face hub id, original .pt of DiT or Latte, or folder"
        " of a trained FlexiDiT",
    )
    add("--modes", nargs="+", required=True, help="weak modes, frames x rows x columns of the latent, e.g. 1x4x4 2x4x4")
    about = "DiT, Latte: a FlexiDiT whose weights all modes share, to be trained in all"
    add("--shared", action="store_true", help=about)
    add("--output-dir", older=["--output"], help="adapter folder to write (default: none is written)")
    add("--prompts", help="file of prompts, one a line: what distillation reads is written to OUTPUT_DIR/prompts")
    add("--rank", type=int, default=16, help="rank of the LoRA; 0 = none")
    add("--skip", action="store_true", help="add a small network around the transformer, zero at first")
    add("--precision", default="fp32", help="precision of the weights: fp32, bf16 or fp16")
    add("--detail", action="store_true", help="weak modes pass on the detail of the noise that their patches lose")
    add_files(add)
    add("--subfolder", help="diffusers: folder of the transformer in a pipeline, e.g. transformer_2")
    add("--device", help="cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    size = "latent frames, rows and columns that costs are counted for (default: the family's usual size)"
    add("--latent-size", older=["--size"], type=int, nargs=3, help=size)
    add("--text-tokens", type=int, default=512, help="tokens of text that costs are counted for (default: 512)")
    add("--dry-run", action="store_true", help="read the configuration only: print costs and memory, and stop")
    add_json(add)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments (default: the command line's)."""
    with program_options(build_parser(), argv) as options:
        run(options)


def run(options: Namespace) -> None:
    """Add the modes, check that native outputs are the same bits, print costs, write the adapter."""
    from flexivid.pipelines import report as pretrained
    from flexivid.pretrained.adapter import save_adapter
    from flexivid.pretrained.flexify import flexify
    from flexivid.pretrained.load import load_transformer
    from flexivid.pretrained.model_files import files_of
    from flexivid.pretrained.signature import usual_size
    from flexivid.runtime.device import DTYPES, pick_device

    prompts = _check(options)
    if options.shared:
        _share(options)
        return
    dtype = DTYPES[options.precision]
    settings, files = {"rank": options.rank, "skip": options.skip, "detail": options.detail}, files_of(options)
    model = load_transformer(options.model, dtype=dtype, empty=options.dry_run, files=files)
    difference = None
    if options.dry_run:
        flexify(model, options.modes, **settings)
    else:
        model.to(pick_device(options.device))
        difference = pretrained.flexify_and_compare(model, options.modes, **settings)
        print(f"native mode, largest absolute difference before and after: {difference:g}")
    size = tuple(options.latent_size or usual_size(model))
    print("\n".join(pretrained.report(model, size, text_tokens=options.text_tokens)))
    if difference:
        raise ValueError(
            f"got a native output that differs by {difference:g}; expected 0; nothing is written: report it"
        )
    folder = None
    if options.output_dir and not options.dry_run:
        folder = str(save_adapter(model, options.output_dir))
        print(f"adapter written to {folder}, not trained yet")
        if prompts:
            _write_prompts(options, model, prompts, dtype)
    if options.json:
        costs = pretrained.summary(model, size, options.text_tokens)
        write_json(options.json, {"difference": difference, "output": folder, **costs})


def _check(options: Namespace) -> list[str]:
    """Refuse options that do not fit together; read the prompts."""
    from flexivid.data.lists.text import read_lines
    from flexivid.runtime.device import DTYPES

    if options.prompts and (not options.output_dir or options.dry_run or not Path(options.prompts).is_file()):
        raise ValueError(f"got --prompts {options.prompts}; expected a file, and --output-dir to write to; give both")
    if options.prompts and options.subfolder not in (None, "transformer"):
        raise ValueError(
            f"got --prompts with --subfolder {options.subfolder}; expected prompts of the pipeline's first transformer,"
            " whose texts serve both; write them without --subfolder"
        )
    unused = flags_set(build_parser(), options, OF_ADAPTERS) if options.shared else []
    if unused:
        raise ValueError(f"got {', '.join(unused)} with --shared, where it has no effect; expected none; leave it out")
    if options.precision not in DTYPES:
        raise ValueError(f"got --precision {options.precision}; expected one of {', '.join(DTYPES)}; change it")
    prompts = read_lines(options.prompts) if options.prompts else []
    if options.prompts and not prompts:
        raise ValueError(f"got --prompts {options.prompts}, which is empty; expected one prompt a line; write some")
    return prompts


def _share(options: Namespace) -> None:
    """Make a FlexiDiT whose weights all modes share, compare its native mode with the source, print costs, write it."""
    from flexivid.budget.cost import macs
    from flexivid.model.checkpoint import save
    from flexivid.model.flexidit import FlexiDiT
    from flexivid.model.memory import sampling_report
    from flexivid.pretrained.load import load_transformer
    from flexivid.pretrained.model_files import files_of
    from flexivid.pretrained.shared.convert import difference, share
    from flexivid.pretrained.signature import usual_size

    source, gap = load_transformer(options.model, empty=options.dry_run, files=files_of(options)), None
    size = tuple(options.latent_size or usual_size(source))
    model = share(source, options.model, options.modes)
    config = model.config
    if not options.dry_run and not isinstance(source, FlexiDiT):
        gap = difference(source, model)
        print(f"native mode, largest absolute difference from the source: {gap:.2g}")
    print("\n".join(sampling_report(config, size, 1, options.text_tokens)))
    folder = str(save(model, options.output_dir)) if options.output_dir and not options.dry_run else None
    if folder:
        print(f"model written to {folder}; train it in all its modes with conf/model/init_from.yaml")
    if options.json:
        costs = {str(mode): macs(config, size, mode, text_tokens=options.text_tokens) for mode in config.modes}
        write_json(options.json, {"difference": gap, "macs": costs, "output": folder})


def _write_prompts(options: Namespace, model: Any, prompts: Sequence[str], dtype: Any) -> None:
    """Write text embeddings for models of flows, whose paths distillation walks itself; for others recorded calls."""
    from flexivid.pipelines.record import record_calls, record_texts
    from flexivid.pipelines.sample import complete_pipeline
    from flexivid.pretrained.model_files import files_of
    from flexivid.pretrained.signature import signature_of

    pipe = complete_pipeline(options.model, dtype=dtype, files=files_of(options), transformer=model)
    pipe.to(next(model.parameters()).device)
    record = record_texts if signature_of(model).is_flow else record_calls
    pipe.set_progress_bar_config(disable=record is record_texts)  # its runs end before the first step
    print(f"{len(prompts)} prompts written to {record(pipe, Path(options.output_dir) / 'prompts', prompts)}")


if __name__ == "__main__":
    main()
