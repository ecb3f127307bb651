"""Files that runs and people leave behind: read with bounds, written whole or not at all."""
