"""Clips and captions that were encoded once: the folder, its shards, what makes them, and batches of them."""

DOORS = ("clips", "decode", "folder", "work")
