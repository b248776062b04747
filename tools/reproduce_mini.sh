#!/usr/bin/env bash
# The mini experiment: five runs, controls, learning curves and scaling, on two
# sets of units, each with several seeds. Stopped, it is run again and goes on.
#
#     bash tools/reproduce_mini.sh [options]
#
#     --experiment YAML what is run (tools/reproduce_mini.yaml)
#     --seeds N         of each training (3)
#     --scale X         X times the tokens of each training (1)
#     --jobs N          at a time (the cores)
#     --device DEVICE   cpu or cuda (what is there)
#     --folder DIR      where all is made (results/evidence)
#     --results DIR     where the small results go (recipes/TinyStories/results;
#                       with --scale, DIR/results of --folder)
#     --until STAGE     the last of synthesis natural units natural_units main
#                       baseline control curve scaling
#     --only NAME...    jobs, such as 'mfcc/*' or mfcc/en_fr-1986
#     --print           print the commands alone
#     --python PYTHON   an interpreter that has the package (one is made in .venv)
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$here/tools/environment.sh"

python="" arguments=()
while [ $# -gt 0 ]; do
    case "$1" in
        --python)
            [ $# -ge 2 ] || { echo "--python needs an interpreter" >&2; exit 2; }
            python="$2"; shift 2 ;;
        *) arguments+=("$1"); shift ;;
    esac
done
[ -n "$python" ] || make_environment recognizer
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
exec "${python:-$VENV/bin/python}" "$here/tools/reproduce_mini.py" "${arguments[@]}"
