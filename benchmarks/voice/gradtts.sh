#!/bin/sh
# gradtts' voice that ships, from a file of sentences and nothing else: sh benchmarks/voice/gradtts.sh SENTENCES OUT
# One CPU core (AVX-512): three minutes of flite, three to measure pitch, 53 of training. Needs flite (Debian: apt-get
# install flite) and `pip install 'rlzoo-speech[corpus]'`. Call it again after an interruption.
set -eu
sentences=$1 out=$2
mkdir -p "$out"

rlzoo corpus flite --voice rms --text "$sentences" --out "$out/corpus" --limit 3000 --min-characters 16 --max-characters 74
rlzoo pretrain --policy gradtts --data "$out/corpus" --out "$out/voice" --set steps=5500 --set half=true \
    $(test -e "$out/voice/train.pt" && echo --resume || true)
