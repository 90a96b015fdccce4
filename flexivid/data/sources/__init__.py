"""Which videos a collection holds: folders, lists, shards, tars, classes."""

DOORS = ("folders", "layout", "leftovers", "manifest", "shard_writer")
