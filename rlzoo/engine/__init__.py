"""The engine: rollouts, scoring, budgets, evaluation, checkpoints, reports. Private; `rlzoo.cli` is its only caller.

`loop.train` runs, `checkpoint.load_policy` gives the policy of a finished run, `events` is what an observer sees.
"""
