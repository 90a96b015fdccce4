"""Bytes: files, remote addresses, ranges inside shards, downloads, archives."""

DOORS = ("byte_range", "changes", "download", "errors", "video_names")
