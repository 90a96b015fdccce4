"""What programs need whatever they are about: options, errors, devices, whole files, work on all ranks."""

DOORS = (
    "bars",
    "device",
    "distributed",
    "errors",
    "files",
    "finite",
    "paths",
    "printable",
    "program",
    "start",
)
