"""Diffusers pipelines under a budget."""
