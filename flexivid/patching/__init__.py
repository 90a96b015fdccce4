"""Patching: patch modes, grids, resizing of patch weights, positions. Knows no model."""

DOORS = ("embed", "position", "resize", "shapes")
