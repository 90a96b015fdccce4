"""The FlexiDiT: configuration, conditioning, attention, block, network. Knows patching; no diffusion, no training."""

DOORS = ("checkpoint", "conditioning", "config", "flexidit", "flops", "frozen", "memory", "packing", "shipped")
