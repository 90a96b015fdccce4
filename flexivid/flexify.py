"""``python -m flexivid.flexify`` is ``python -m flexivid.convert``.

In Python ``flexivid.flexify`` is the public function. Importing this file would put a module in its place, so that is
refused.
"""

from __future__ import annotations

if __name__ == "flexivid.flexify":
    raise ImportError(
        "got an import of flexivid.flexify as a module; expected the function of that name, or the module of the"
        " program; write `from flexivid import flexify` or `from flexivid import convert`"
    )
if __name__ == "__main__":
    from flexivid.convert import main

    main()
