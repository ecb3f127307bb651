"""Benchmarks: a grid of algorithms, rewards and seeds at equal budgets, and what can be concluded from it."""
