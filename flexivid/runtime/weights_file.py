"""Why a file of weights is refused, for people. All are loaded as plain data only, by ``weights_only=True``.

Standard library only.
"""

from __future__ import annotations

import re
from pickle import UnpicklingError


def reason_of(error: Exception) -> str:
    r"""Why ``torch.load`` refuses a file, in a line: what it advises, to load it as code, is what nobody should do.

    Example:
        >>> reason_of(ValueError("Weights only load failed. Set it to False.\\n\\nTrying to load GLOBAL os.mkdir."))
        'it holds os.mkdir, which is no data'
    """
    asked = re.search(r"GLOBAL (\S+?)[.]?(\s|$)", str(error))
    if asked:
        return f"it holds {asked[1]}, which is no data"
    if isinstance(error, UnpicklingError):
        return "it holds something else than data"
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
