"""Decoding in processes that can be killed at any time."""

DOORS = ("pool",)
