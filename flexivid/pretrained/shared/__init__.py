"""The paper's variant A: pre-trained DiT and Latte as a FlexiDiT whose weights all modes share."""

DOORS = ("convert", "start")
