"""Rows side by side on the cores of a CPU: for policies and rewards."""

from rlzoo.core.parallel import each, map_rows, pool, pool_from_here_back, portions, scratch, shares, size

__all__ = ["each", "map_rows", "pool", "pool_from_here_back", "portions", "scratch", "shares", "size"]
