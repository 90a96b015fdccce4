"""What programs need whatever they are about: options, errors, devices, whole files, work on all ranks."""

DOORS = (
    "console",
    "devices",
    "distributed",
    "errors",
    "finite",
    "paths",
    "precision",
    "printable",
    "program",
    "start",
    "weights_file",
    "whole_file",
)
