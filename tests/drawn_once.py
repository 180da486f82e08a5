"""Imported for its effect: `shapes` is drawn once a process, and forks find it drawn already."""

from __future__ import annotations

from functools import lru_cache

from cifar_cli.data.sources import shapes

if not hasattr(shapes.load_shapes, "cache_info"):
    shapes.load_shapes = lru_cache(shapes.load_shapes)
