"""The FlexiDiT: configuration, conditioning, attention, block, network; the recipe beside it, and their files.

The network knows no diffusion; the recipe names a process. No training.
"""

DOORS = (
    "block",
    "checkpoint",
    "conditioning",
    "config",
    "flexidit",
    "flops",
    "formats",
    "frozen",
    "memory",
    "recipe",
    "shipped",
)
