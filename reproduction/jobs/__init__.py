"""Running jobs: devices, memory, progress, files and where each result comes from."""
