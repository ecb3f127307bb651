"""English spelling to sound: normalisation, dictionary, letter-to-sound."""
