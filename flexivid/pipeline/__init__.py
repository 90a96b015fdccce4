"""Pipeline: assembly of network, process, schedule and codec: checkpoints, generation, cost reports, video files."""
