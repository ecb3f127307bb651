"""Blind A/B listening tests: pairs of recordings, a web page, answers in SQLite, statistics. Light.

`sources` finds the recordings, `study` prepares and keeps a test in a folder, `web` shows it, `serve` runs the server,
`report` counts, `export` writes the pairs that preference learning reads.
"""
