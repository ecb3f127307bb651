#!/bin/sh
# The voice that ships, from nothing but a file of sentences, on a CPU: sh benchmarks/voice/mini.sh SENTENCES OUT
# One core with bf16 matrix units took 78 minutes for the first training; the second was made in 79 on a machine without
# them, partly on two cores. Needs flite (Debian: apt-get install flite). Call it again after an interruption.
set -eu
sentences=$1 out=$2
mkdir -p "$out"

again() { test -e "$1/train.pt" && echo --resume || true; }

rlzoo corpus speak --engine flite --voice slt --text "$sentences" --out "$out/corpus" --rate 8000 --limit 3000 \
    --min-characters 12 --max-characters 85 --feature int_f0_target_mean=200 --feature int_f0_target_stddev=0
# 1. The published losses: samples of ten and more steps.
rlzoo pretrain --policy wavegrad2 --preset mini --data "$out/corpus" --out "$out/many" --set minutes=78 --set half=true \
    $(again "$out/many")
# 2. The same, and for two steps, which is how RL samples it: docs/decisions/0013-two-steps-are-trained-for.md. In
#    float32, as on the machine that made it: in bf16 the loss of a rollout ends at 1.70 and not at 1.13.
rlzoo pretrain --policy wavegrad2 --data "$out/corpus" --out "$out/few" --set init="$out/many/voice.safetensors" \
    --set minutes=79 --set "rollout_levels=[0.835,0.35]" --set spectral_weight=0 --set learning_rate=2e-4 \
    --set final_learning_rate=2e-5 --set warmup_steps=50 --set grad_clip=5 --set ema_decay=0.99 --set half=true \
    --set precision=fp32 \
    $(again "$out/few")
# 3. Schedules for other numbers of steps, beside the one for two.
rlzoo tune-schedule --checkpoint "$out/few/voice.safetensors" --data "$out/corpus" --steps 3 --steps 4 --steps 6 --steps 10
rlzoo tune-schedule --checkpoint "$out/few/voice.safetensors" --data "$out/corpus" --steps 25 --utterances 3
