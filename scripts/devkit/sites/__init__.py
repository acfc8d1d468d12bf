"""Where the server runs: an engine, or a cluster."""
