#!/bin/sh
# A listening test of base, dlpo and draft on 20 held-out sentences: benchmarks/voice/listening.sh [FOLDER]
# Makes both runs (four to eight minutes of two cores; a finished one is kept) and prints the commands that start the tests.
set -eu
folder=${1:-runs/listening}
texts=$(cd "$(dirname "$0")/../../plugins/prompts/rlzoo_prompts/data" && pwd)
for algo in dlpo draft; do
    [ -f "$folder/$algo/report.html" ] || rlzoo run --algo "$algo" --reward distillmos --out "$folder/$algo" \
        --prompts text --set "prompts.path=$texts/short-train.txt" --set "prompts.heldout_path=$texts/heldout.txt" \
        --set eval.prompts=20
done
echo
echo "base against dlpo:   rlzoo listen $folder/dlpo"
echo "base against draft:  rlzoo listen $folder/draft"
echo "dlpo against draft:  rlzoo listen $folder/dlpo $folder/draft"
