"""Pixels, and files that people look at: videos, grids, pages."""

DOORS = ("html", "pixels", "write")
