#!/usr/bin/env bash
# From stories to a table of scores, on two CPU cores and without a download.
# Runs the recipes one after the other, as a user would, and prints each
# command. Run again, it reuses what is complete and resumes what is not.
#
#     bash tools/quickstart.sh [--output_folder DIR]     (results/quickstart)
set -euo pipefail
started_in="$PWD"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/environment.sh

output="results/quickstart"
while [ $# -gt 0 ]; do
    case "$1" in
        --output_folder=*) output="${1#*=}"; shift ;;
        --output_folder)
            [ $# -ge 2 ] || { echo "--output_folder needs a folder" >&2; exit 2; }
            output="$2"; shift 2 ;;
        *)
            echo "quickstart.sh does not know '$1'; expected" \
                "[--output_folder DIR]" >&2
            exit 2 ;;
    esac
    [ -n "$output" ] || { echo "--output_folder needs a folder" >&2; exit 2; }
    case "$output" in /*) ;; *) output="$started_in/$output" ;; esac
done

make_environment
# Nothing is looked up on a hub. The two cores share one run at a time.
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
recipes="recipes/TinyStories"
began=$(date +%s)

run() {
    echo
    echo "+ python $*"
    with_me "$VENV/bin/python" "$@"
}

run "$recipes/synthesis/train.py" "$recipes/synthesis/hparams/mini.yaml" \
    --output_folder "$output/synthesis"
run "$recipes/units/train.py" "$recipes/units/hparams/mini.yaml" \
    --data_folder "$output/synthesis" --output_folder "$output/units"
for name in en_fr interleaved_ft; do
    run "$recipes/LM/train.py" "$recipes/LM/hparams/mini.yaml" \
        --run "$name" --units_folder "$output/units" --output_folder "$output/LM/$name"
done
for name in en_fr interleaved_ft; do
    run "$recipes/cloze/train.py" "$recipes/cloze/hparams/mini.yaml" \
        --run "$name" --model_folder "$output/LM/$name/model" \
        --units_folder "$output/units/cloze" \
        --items "$output/synthesis/items.parquet" \
        --output_folder "$output/cloze/$name"
done
run tools/report.py \
    --runs "en_fr=$output/LM/en_fr:$output/cloze/en_fr" \
    "interleaved_ft=$output/LM/interleaved_ft:$output/cloze/interleaved_ft" \
    --manifest "$output/synthesis/cloze.parquet" --output_folder "$output"
echo
echo "Done in $(( $(date +%s) - began )) s."
