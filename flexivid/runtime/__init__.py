"""What every program needs, whatever it does: options, errors, devices, files, consoles, work on all ranks."""

DOORS = (
    "console",
    "device",
    "distributed",
    "errors",
    "files",
    "finite",
    "hub",
    "paths",
    "printable",
    "program",
    "ranks",
    "start",
    "weights",
)
