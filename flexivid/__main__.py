"""``flexivid VERB ...`` is ``python -m flexivid.VERB ...``."""

from __future__ import annotations

import sys
from importlib import import_module

VERBS = {
    "train": "train a flexible video model",
    "search": "find the best patch schedule for every budget",
    "sample": "sample videos at any fraction of the full compute",
    "evaluate": "measure quality against compute, or how far two folders of videos are apart",
    "convert": "give a pre-trained video transformer weak modes",
    "dataset": "check, preview, index, count and shard a collection of videos",
}
OLDER_NAMES = {"flexify": "convert"}


def main() -> None:
    """Hand the arguments to the verb's program."""
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    verb = OLDER_NAMES.get(verb, verb)
    if verb in VERBS:
        import_module(f"flexivid.{verb}").main(sys.argv[2:])
        return
    lines = "\n".join(f"  {name:<8} {text}" for name, text in VERBS.items())
    usage = f"usage: flexivid VERB [options]\n\nverbs:\n{lines}\n\nexample: flexivid sample --budget 0.25"
    if verb in ("-h", "--help"):
        print(usage)
        return
    print(f"error: got verb {verb!r}; expected one of {', '.join(VERBS)}; see flexivid --help", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
