"""What does a model lose when it is shipped? Round its weights to float16, write its folder, compare the outputs.

    python benchmarks/ship_model.py runs/moving_digits/version_0 --quality quality.md --curve evaluation/curve.png

Writes ``config.json``, ``model.safetensors`` (float16), ``schedules.json``, ``card.md`` and ``curve.png`` to
``flexivid/models/<name>``. A table of measured schedules names the weights that it was measured with. Tables of the
unrounded weights are kept under the name of the rounded ones, which is sound as long as the printed change of the
outputs is small. To measure anew: copy the folder to ``runs/``, search there, and copy ``schedules.json`` back.

The last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from flexivid import FlexiDiT, load
from flexivid.budget.table import FILE, read_tables, write_tables
from flexivid.evaluation.clips import data_root, data_section
from flexivid.evaluation.run import run_folder
from flexivid.model import shipped
from flexivid.model.checkpoint import fingerprint, save
from flexivid.model.conditioning import Condition
from flexivid.sampling.plan import tables_folder

MOST_MB = 16  # 10^6 bytes, of all files of a model
LARGEST = torch.finfo(torch.float16).max
CARD = """# {name}

A small FlexiDiT that draws moving handwritten digits, class by class. It comes with flexivid, so that the dial can be
turned right after installation.

```python
model = flexivid.load("{name}")
result = flexivid.generate(model, budget=0.25, labels=[3, 8], seed=7)
```

* **Network:** {parameters:.1f} M parameters, width {width}, depth {depth}; modes {modes} (frames x rows x columns), the
  first one native. Weights are stored in float16 and used in float32.
* **Video:** {size}, {fps:g} frames a second, classes {classes}.
* **Training:** {steps} steps of `flexivid.train`; averaged weights.
* **Data:** {data}, from the 8x8 scans of scikit-learn's `load_digits` (Optical Recognition of
  Handwritten Digits, E. Alpaydin and C. Kaynak, UCI, CC BY 4.0). Held-out clips show scans that no training clip shows.
* **Sampling unless told otherwise:** {sampling}.

## Quality

{quality}

## Limits

Ten digits from about 1400 scans, white on black, 32x32 pixels, on straight paths: a toy for trying schedules, not a
model of video. Other sizes and lengths are possible, but it was not trained on them.

## Licence

Apache-2.0, as flexivid.
"""


def ship(run: Path, name: str, *, quality: str = "", curve: Path | None = None) -> dict[str, Any]:
    """Write the folder of a shipped model; one that is there is replaced if nothing is wrong with the new one.

    Args:
        run: Folder of a finished training or of an exported model.
        name: What ``flexivid.load`` will know it by.
        quality: Markdown for the card: step floor, FVD against compute, the judge's accuracy.
        curve: PNG of quality against compute.

    Returns:
        What was written and what rounding changed.

    Raises:
        ValueError: If a weight is too large for float16, or the folder would be too large.
    """
    model = load(run)
    largest = max(float(tensor.abs().max()) for tensor in model.state_dict().values())
    if not largest < LARGEST:
        raise ValueError(f"got a weight of {largest:g} in {run}; expected less than {LARGEST:g}; train it anew")
    tables = [table for table in read_tables(tables_folder(run)) if table.model == fingerprint(model)]
    shipped.FOLDER.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=shipped.FOLDER.parent) as new:
        save(copy.deepcopy(model).half(), new)
        rounded = load(new)
        if tables:
            write_tables(Path(new) / FILE, [table._replace(model=fingerprint(rounded)) for table in tables])
        (Path(new) / "card.md").write_text(card(rounded, name, data=data_line(run), quality=quality))
        if curve is not None:
            shutil.copyfile(curve, Path(new) / "curve.png")
        total = sum(file.stat().st_size for file in Path(new).iterdir())
        if total > MOST_MB * 10**6:
            raise ValueError(f"got {total / 1e6:.1f} MB for {name}; expected at most {MOST_MB}; ship a smaller network")
        replace_folder(Path(new), shipped.FOLDER / name)
    changes = output_changes(model, rounded)
    return {
        "folder": name,
        "megabytes": round(total / 1e6, 2),
        "model": fingerprint(rounded),
        "tables": len(tables),
        "output_change": {mode: round(change, 6) for mode, change in changes.items()},
    }


def replace_folder(new: Path, folder: Path) -> None:
    """Put copies of the files of a folder in place of those of another, readable by everyone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file in new.iterdir():
        shutil.copyfile(file, folder / file.name)  # without the mode: safetensors writes for the owner only


def output_changes(model: FlexiDiT, rounded: FlexiDiT) -> dict[str, float]:
    """Root mean square change of the output by mode, in root mean squares of the output, on noise at four times."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, model.config.in_channels, *model.recipe.size, generator=generator)
    time = torch.tensor([0.2, 0.5, 0.8, 1.0])
    condition = Condition(torch.arange(4) % model.config.num_classes) if model.config.num_classes else Condition()
    changes = {}
    with torch.inference_mode():
        for mode in model.config.modes:
            outputs = model(x, time, condition, mode=mode)
            difference = rounded(x, time, condition, mode=mode) - outputs
            changes[str(mode)] = float(difference.square().mean().sqrt() / outputs.square().mean().sqrt())
    return changes


def data_line(run: Path) -> str:
    """What the training clips are: the command that made them, where data/moving_digits.py has left a note of it."""
    folder = run_folder(run)
    try:
        note = Path(data_root(folder, data_section(folder))) / "recipe.json"
    except ValueError:  # no folder is named, or it is gone
        return "clips"
    if not note.is_file():
        return "clips"
    flags = {key: value for key, value in json.loads(note.read_text()).items() if key != "version"}
    words = [f"--{key.replace('_', '-')}" + ("" if value is True else f" {value}") for key, value in flags.items()]
    return f"clips made by `python data/moving_digits.py {' '.join(words)}`"


def card(model: FlexiDiT, name: str, *, data: str, quality: str) -> str:
    """The model card: what is known from the files, and what was measured."""
    recipe = model.recipe
    frames, height, width = recipe.size
    return CARD.format(
        name=name,
        parameters=model.num_parameters / 1e6,
        width=model.config.width,
        depth=model.config.depth,
        modes=", ".join(map(str, model.config.modes)),
        size=f"{frames} frames of {height}x{width}",
        fps=recipe.fps,
        classes=", ".join(recipe.class_names) or "none",
        steps="an unknown number of" if recipe.global_step is None else recipe.global_step,
        data=data,
        sampling=", ".join(f"{key} {value}" for key, value in recipe.to_dict()["sampling"].items()),
        quality=quality.strip() or "Not measured.",
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished training")
    parser.add_argument("--name", default=shipped.DEFAULT, help="name of the shipped model (default: moving_digits)")
    parser.add_argument("--quality", type=Path, help="Markdown for the card's section on quality")
    parser.add_argument("--curve", type=Path, help="PNG of quality against compute")
    options = parser.parse_args()
    quality = options.quality.read_text() if options.quality else ""
    print(json.dumps(ship(options.run, options.name, quality=quality, curve=options.curve)))


if __name__ == "__main__":
    main()
