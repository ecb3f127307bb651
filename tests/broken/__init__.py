"""Plugins with one bug each; `tests/test_conformance.py` holds the kit to finding every one of them."""
