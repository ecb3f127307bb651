"""Writing files so that each is whole or not there, whatever stops the process."""

from rlzoo.files.writing import replacing, sweep, write_bytes, write_text

__all__ = ["replacing", "sweep", "write_bytes", "write_text"]
