"""Which features are compared when nobody says: I3D's where its weights are, else those that come with flexivid."""

from __future__ import annotations

import os
from typing import Any

from flexivid.metrics.extractors.i3d_weights import find_weights

NO_WEIGHTS = "no I3D weights (--download fetches them): fvd[motion] instead, which compares with no paper's FVD"


def choose_metric(
    name: str | None, weights: str | None = None, compat: str | None = None
) -> tuple[dict[str, Any], str]:
    """What was asked for, or the best there is.

    Args:
        name: Of an extractor; ``None`` = ``i3d`` if its weights are found and nobody asked for some, else ``motion``.
        weights: File of its weights.
        compat: For ``i3d``.

    Returns:
        Keywords of ``build_extractor``, and what has to be told, if anything.

    Raises:
        FileNotFoundError: If weights are named that do not exist.

    Example:
        >>> choose_metric("r3d_18")
        ({'name': 'r3d_18'}, '')
    """
    given: dict[str, Any] = {"weights": weights, "compat": compat}
    given = {"name": name or "i3d", **{key: value for key, value in given.items() if value is not None}}
    if name is None:
        try:
            find_weights(weights)
        except FileNotFoundError:
            if len(given) > 1 or os.environ.get("FLEXIVID_I3D"):
                raise
            return {"name": "motion"}, NO_WEIGHTS
    return given, ""
