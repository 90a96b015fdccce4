"""Latents: what turns video into what the network sees, and back."""

DOORS = ("causal_autoencoder", "codec", "settings", "spectrum")
