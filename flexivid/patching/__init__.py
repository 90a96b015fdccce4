"""Patching: patch modes, grids, resizing of patch weights, positions. Knows no model."""
