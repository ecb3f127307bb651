#!/bin/sh
# The voice of gradtts that ships, from a file of sentences and nothing else: sh benchmarks/voice/heart.sh SENTENCES OUT
# An hour and a half on one core: a few minutes of speaking, the rest training. Needs the extras `hibari` and `corpus`.
# Call it again after an interruption.
set -eu
sentences=$1 out=$2
mkdir -p "$out"

rlzoo corpus speak --engine hibari --text "$sentences" --out "$out/corpus" --limit 4000 --min-characters 16 \
    --max-characters 100 --rate 16000 --conditions found
rlzoo pretrain --policy gradtts --data "$out/corpus" --out "$out/voice" --set mean_steps=16000 --set steps=20000 \
    --set half=true $(test -e "$out/voice/train.pt" && echo --resume || true)
