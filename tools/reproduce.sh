#!/usr/bin/env bash
# The whole experiment, from stories to scores, alignment and continuations, at
# one size: prints each command and runs it. Stopped, it is run again and goes on.
#
#     bash tools/reproduce.sh --size {mini,360M,1B} [options]
#
#     --runs "en_fr interleaved"  of: en fr en_fr interleaved interleaved_ft (all)
#     --until STAGE    the last stage to run. Of mini: synthesis units vocoder LM
#                      cloze alignment continuation; else: text translation
#                      synthesis speaker_check benchmark, and those from units on
#     --spoken         an aligned spoken corpus in data/spoken takes the place of
#                      text, translation and synthesis
#     --scale X        X times the tokens of each run, the steps of the vocoder,
#                      what is heard of it, and the prompts to be continued (1)
#     --gpus N         ranks of torchrun (those that nvidia-smi lists; 0: none)
#     --folder DIR     where data/ and results/ are (the repository)
#     --models DIR     models that are DIR/<their name on the hub>, where there is
#                      no network
#     --chat URL       an OpenAI-compatible server of your own, without a key
#     --python PYTHON  an interpreter that has the package (one is made in .venv)
#     --print          print the commands alone
set -euo pipefail
started_in="$PWD"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/environment.sh

size="" runs="en fr en_fr interleaved interleaved_ft" until="" spoken="" scale=1
gpus="" folder="$ROOT" models="" chat="" python="" print=""
fail() { echo "reproduce.sh: $*" >&2; exit 2; }
while [ $# -gt 0 ]; do
    case "$1" in
        --spoken|--print) declare "${1#--}=yes"; shift ;;
        --size|--runs|--until|--scale|--gpus|--folder|--models|--chat|--python)
            [ $# -ge 2 ] || fail "$1 needs a value"
            declare "${1#--}=$2"; shift 2 ;;
        *) fail "'$1' is not known; see the head of tools/reproduce.sh" ;;
    esac
done
absolute() { case "$1" in /*|"") echo "$1" ;; *) echo "$started_in/$1" ;; esac; }
folder="$(absolute "$folder")" models="$(absolute "$models")"
case "$size" in
    mini) stages="synthesis units vocoder LM cloze alignment continuation"; unit=16384
          [ -z "$spoken" ] || fail "--spoken goes with --size 360M or 1B" ;;
    360M|1B) stages="text translation synthesis speaker_check benchmark units vocoder LM cloze alignment continuation"
             unit=614400000 ;;
    *) fail "--size is '$size'; expected mini, 360M or 1B" ;;
esac
case " $stages " in
    *" ${until:=continuation} "*) ;;
    *) fail "--until is '$until'; expected one of: $stages" ;;
esac
for run in $runs; do
    case " en fr en_fr interleaved interleaved_ft " in
        *" $run "*) ;;
        *) fail "--runs names '$run'; expected en fr en_fr interleaved interleaved_ft" ;;
    esac
done
scaled() { awk -v u="$1" -v s="$scale" 'BEGIN { printf "%d", u * s + 0.5 }'; }
least() { [ "$(scaled "$1")" -gt 0 ] && scaled "$1" || echo 1; }
tokens="$(scaled "$unit")"
[ "$tokens" -gt 0 ] || fail "--scale is '$scale'; expected a number above 0, such as 0.01"
[ "$gpus" != 0 ] || export CUDA_VISIBLE_DEVICES=""
[ -n "$gpus" ] || gpus="$(nvidia-smi --list-gpus 2>/dev/null | wc -l || true)"
case "$gpus" in *[!0-9]*) fail "--gpus is '$gpus'; expected a number" ;; esac

[ -n "$print$python" ] || make_environment "$([ "$size" = mini ] || echo full)"
cd "$folder"
here="$ROOT/"
[ "$folder" != "$ROOT" ] || here=""
stories="${here}recipes/TinyStories"
alone=("${python:-$VENV/bin/python}")
ranks=("${alone[@]}")
[ "$gpus" -le 1 ] || ranks+=(-m torch.distributed.run --standalone "--nproc_per_node=$gpus")

# Options of one stage that stand in the place of what a hub or a host gives.
from() {  # NAME 'MAPPING with %': % is the folder of the hub model NAME
    [ -z "$models" ] || printf '%s' "${2//%/$models/$1}"
}
recipe() {  # LAUNCHER FOLDER YAML [--key value ...]: a key without value is left out
    local -n launcher="$1"
    local command=("${launcher[@]}" "$2/train.py" "$2/hparams/$3.yaml") word
    shift 3
    while [ $# -gt 0 ]; do
        [ -z "$2" ] || command+=("$1" "$2")
        shift 2
    done
    printf '\n+'
    for word in "${command[@]}"; do
        case "$word" in *[!a-zA-Z0-9_./=:-]*) word="${word@Q}" ;; esac
        printf ' %s' "$word"
    done
    echo
    [ -n "$print" ] || with_me "${command[@]}"
}

yaml=full lm="" begun=$SECONDS sized="$size"
vocoder=mimi voices=results/TinyStories/vocoder_mimi/vocoder steps=50000
prompts=500 judged=25
spoken_data=results/TinyStories/speaker_check
mimi="$(from kyutai/mimi %)" text_lm="$(from meta-llama/Llama-3.2-1B %)"
speech="$(from kyutai/pocket-tts '{source: "%"}')"
case "$size" in
    mini) yaml=mini speech="" sized="" mimi="" text_lm="" spoken_data=""
        vocoder=mini voices=results/mini/vocoder/vocoder steps=3000 prompts=200 judged="" ;;
    360M) lm="$(from Qwen/Qwen2-0.5B '{warm_start: "%"}')" ;;
    1B) lm="$(from meta-llama/Llama-3.2-1B '{warm_start: "%"}')" ;;
esac
stage() {
    local run
    case "$1" in
        text|translation|synthesis) [ -z "$spoken" ] || return 0 ;;&
        text) recipe alone "$stories/text" full ;;
        translation)
            recipe ranks "$stories/translation" full --translation \
                "${chat:+{base_url: \"$chat\", api_key_variable: null\}}" ;;
        synthesis) recipe ranks "$stories/synthesis" "$yaml" --speech "$speech" ;;
        speaker_check)
            [ -z "$spoken" ] || recipe alone "$stories/spoken" full
            recipe ranks "$stories/speaker_check" full \
                --data_folder "${spoken:+results/TinyStories/spoken}" \
                --encoder "$(from speechbrain/spkrec-ecapa-voxceleb '{source: "%"}')" ;;
        benchmark)
            recipe alone "${here}recipes/StoryCloze/synthesis" full --speech "$speech" ;;
        units)
            recipe ranks "$stories/units" "$yaml" --units \
                "${mimi:+{source: \"$mimi\"\}}" ;;
        vocoder)
            recipe ranks "$stories/vocoder" "$vocoder" --data_folder "$spoken_data" \
                --tokenizer_source "$mimi" \
                --steps "$([ "$scale" = 1 ] || least "$steps")" \
                --judged "$([ -z "$judged" ] || [ "$scale" = 1 ] || least "$judged")" ;;
        LM)
            for run in $runs; do
                recipe ranks "$stories/LM" "$size" --run "$run" --lm "$lm" \
                    --vocoder_folder "$voices" \
                    --thousand_steps "$([ "$scale" = 1 ] || echo "$tokens")"
            done ;;
        continuation)
            for run in $runs; do
                recipe ranks "$stories/continuation" "$yaml" --run "$run" \
                    --size "$sized" --text_lm "$text_lm" \
                    --tokenizer_source "$mimi" --prompts \
                    "$([ "$scale" = 1 ] || echo "{num_prompts: $(least "$prompts")}")"
            done ;;
        cloze|alignment)
            for run in $runs; do
                recipe ranks "$stories/$1" "$yaml" --run "$run" \
                    --size "$sized"
            done ;;
    esac
}
for one in $stages; do
    stage "$one"
    [ "$one" != "$until" ] || break
done
echo
echo "Done in $((SECONDS - begun)) s: $folder/results"
