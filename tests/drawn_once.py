"""Imported for its effect: `shapes` is drawn once a process, and forks find it drawn already."""

from __future__ import annotations

from functools import lru_cache

from cifar_cli.data.sources import load as sources

if not hasattr(sources.load_shapes, "cache_info"):
    sources.load_shapes = lru_cache(sources.load_shapes)
