"""Files: run folders, weights, voices; and signals, which stop a writer."""
