"""The FlexiDiT: configuration, conditioning, attention, block, network. Knows patching; no diffusion, no training."""
