"""The command line: one file a command, each parses, calls the engine once, and renders."""
