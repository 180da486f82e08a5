"""The run directory: its paths, its small files and its lock, and how runs are named and found.

Knows nothing of torch, so that plots and listings stay light.
"""

from cifar_cli.rundir.folder import SCHEMA_VERSION, RunDir
from cifar_cli.rundir.naming import create_run, find_run, known_runs, run_path
from cifar_cli.rundir.records import EpochRecord, StepRecord

__all__ = [
    "SCHEMA_VERSION",
    "EpochRecord",
    "RunDir",
    "StepRecord",
    "create_run",
    "find_run",
    "known_runs",
    "run_path",
]
