"""Bytes: files, remote addresses, ranges inside shards, downloads, archives."""
