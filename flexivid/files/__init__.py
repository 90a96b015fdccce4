"""What every room needs to know of files: written whole or not at all, one writer at a time, names fit to be shown."""
