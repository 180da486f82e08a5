"""Limits that the system sets to this process's memory."""

from __future__ import annotations


def memory_limit() -> tuple[str, int] | None:
    """The first limit that there is: its option of `ulimit`, and its bytes; None without one."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    for option, kind in (("v", resource.RLIMIT_AS), ("d", resource.RLIMIT_DATA)):
        limit = resource.getrlimit(kind)[0]
        if limit != resource.RLIM_INFINITY:
            return option, limit
    return None
