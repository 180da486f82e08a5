"""Figures in files: plain values in, PNG out. Drawn without a display, never shown.

What a user has set up for other figures does not matter here. Matplotlib even refuses to be
imported where MPLBACKEND names a backend that is not installed, as a notebook's is in a terminal.
"""

import logging
import os

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # such as of what a matplotlibrc holds
_backend = os.environ.pop("MPLBACKEND", None)
try:
    import matplotlib  # noqa: F401 - for its effect
finally:
    if _backend is not None:
        os.environ["MPLBACKEND"] = _backend
