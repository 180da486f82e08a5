"""Figures in files: plain values in, PNG out. Drawn without a display, never shown.

What a user has set up for other figures does not matter here: Matplotlib is imported with the
`matplotlibrc` of this folder. It even refuses to be imported if MPLBACKEND names a backend that
is not installed, as a notebook's is in a terminal, or if a matplotlibrc is not UTF-8.
"""

import contextlib
import logging
import os
from pathlib import Path

_HERE = Path(__file__).parent
_OWN = {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.fspath(_HERE / "matplotlibrc")}

logging.getLogger("matplotlib").setLevel(logging.ERROR)
_before = {name: os.environ.get(name) for name in _OWN}
os.environ.update(_OWN)
try:
    # A matplotlibrc of the working folder would come before that of the environment.
    _in_reach = os.path.lexists("matplotlibrc")
    with contextlib.chdir(_HERE) if _in_reach else contextlib.nullcontext():
        import matplotlib  # noqa: F401 - for its effect
finally:
    for _name, _value in _before.items():
        del os.environ[_name]
        if _value is not None:
            os.environ[_name] = _value
