#!/usr/bin/env bash
# Everything that CI checks: style, types, unit tests, doctests, recipe tests
# and the reliability checks. Makes .venv and installs the test extras if need
# be.
#
#     bash tools/test.sh            what CI runs
#     bash tools/test.sh --fast     style, types and the quick unit tests
#     bash tools/test.sh --slow     the long reliability checks as well
#     bash tools/test.sh -k plan    further arguments go to pytest; -n 4 runs
#                                   four tests at a time (2 by default)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/environment.sh
make_environment test
# The weights of a speaker encoder. What else it asks for is not used, and a
# part of that is built by a C compiler.
"$VENV/bin/pip" install --quiet --no-deps Resemblyzer==0.1.4

tests=(-m "not slow")
case "${1:-}" in
    --slow) tests=(-m "slow or not slow"); shift ;;
    --fast) tests=(-m "not slow and not long" tests/unit speechbrain_slm); shift ;;
esac
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONHASHSEED=0
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
"$VENV/bin/mypy" speechbrain_slm
"$VENV/bin/python" -m pytest -n 2 --dist worksteal -rs "${tests[@]}" "$@"
