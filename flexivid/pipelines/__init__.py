"""Diffusers pipelines under a budget."""

DOORS = ("budget", "record", "report", "sample")
