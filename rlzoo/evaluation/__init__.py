"""Judging policies and recordings outside a run, for `rlzoo eval` and `rlzoo.evaluate`. Importing this is free."""
