"""The signals by which a terminal, a shell or a scheduler stops a program."""

import signal

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Those that this system has."""
