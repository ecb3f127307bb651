"""Means, intervals, comparisons of runs, signs of reward hacking."""
