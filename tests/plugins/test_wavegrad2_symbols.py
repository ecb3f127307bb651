"""Phones to rows of wavegrad2's embedding."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from rlzoo_wavegrad2.symbols import SYMBOL_IDS, SYMBOLS, phone_ids

from rlzoo.errors import DataError

SHARED = Path(__file__).parents[3] / "shared"


def test_the_table_has_the_published_rows() -> None:
    assert len(SYMBOLS) == len(set(SYMBOLS)) == 151
    rows = {"<pad>": 0, "A": 1, "z": 52, "!": 53, " ": 63, "@AA": 64, "@AH0": 73, "@ZH": 147, "@sp": 148, "@sil": 150}
    assert {symbol: SYMBOL_IDS[symbol] for symbol in rows} == rows


def test_the_table_equals_the_published_listing() -> None:
    listing = SHARED / "design" / "wavegrad2_shapes.txt"
    if not listing.exists():
        pytest.skip(f"no listing of the public model at {listing}")
    assert ast.literal_eval(listing.read_text().splitlines()[1]) == SYMBOL_IDS


def test_ids_name_an_unknown_phone() -> None:
    assert phone_ids(["HH", "AH0", "L", "OW1", "sp"]) == [106, 73, 117, 123, 148]
    with pytest.raises(DataError, match="'ax'"):
        phone_ids(["HH", "ax"])
