"""Speech corpora: making them (flite, sentence grammar, alignment) and reading them back. Importing this is free."""
