"""Training a small causal video autoencoder, whose latents other models are trained on."""

DOORS = ()
