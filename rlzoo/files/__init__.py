"""What is read from and written to disk: run folders, weights, voices; and signals, which stop a writer."""
