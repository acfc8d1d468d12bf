"""The project's secrets: how a generation follows from the one before, and how each is kept on disk."""
