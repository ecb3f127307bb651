#!/bin/sh
# A voice like the one that ships, from nothing but a file of sentences, on a CPU: sh benchmarks/voice/mini.sh SENTENCES OUT
# About three and a half hours on two cores with bf16 matrix units. Needs the extra `hibari`. Call it again after an
# interruption. README.md in this folder lists how the training of the voice that ships differed from this.
set -eu
sentences=$1 out=$2
mkdir -p "$out"

again() { test -e "$1/train.pt" && echo --resume || true; }

# 1. Three hours of a natural voice at 8 kHz, with phone times: 80 seconds.
rlzoo corpus speak --engine hibari --text "$sentences" --out "$out/corpus" --rate 8000 --limit 2500 \
    --min-characters 16 --max-characters 100
# 2. Encoder, durations and mel decoder first, for the first 6,000 steps, and then the denoiser with them.
rlzoo pretrain --policy wavegrad2 --preset mini --data "$out/corpus" --out "$out/training" --set minutes=200 \
    --set mel_steps=6000 --set level_sampling=log-snr --set estimate_weight=0.1 --set half=true \
    --set utterances_per_step=4 --set windows_per_utterance=4 --set ema_decay=0.998 --set warmup_steps=50 \
    --set validate_every=7000 --set "validation_steps=[6,50]" --set validation_utterances=8 $(again "$out/training")
# 3. Schedules of few steps.
if ! test -e "$out/voice.safetensors"; then
    rlzoo tune-schedule --checkpoint "$out/training/voice.safetensors" --data "$out/corpus" --out "$out/tuned.safetensors" \
        --steps 4 --steps 6 --steps 10
    rlzoo tune-schedule --checkpoint "$out/tuned.safetensors" --data "$out/corpus" --steps 25 --utterances 3
    mv "$out/tuned.safetensors" "$out/voice.safetensors"
fi
