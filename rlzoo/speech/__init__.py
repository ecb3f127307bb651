"""Sound and language: recordings, recognisers, preferences, text to phones, corpora."""
