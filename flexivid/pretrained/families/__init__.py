"""One file a family of transformers: how its patches fold, and how its call is made."""

DOORS = ("family", "registry", "video_dit")
