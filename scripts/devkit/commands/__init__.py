"""One module per command; each has `main(arguments)`, which returns the exit code."""
