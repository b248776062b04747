#!/usr/bin/env bash
# Everything that CI checks: style, unit tests, doctests, recipe tests and the
# reliability checks. Makes .venv and installs the test extras if need be.
#
#     bash tools/test.sh            the fast checks
#     bash tools/test.sh --slow     the long reliability checks as well
#     bash tools/test.sh -k plan    further arguments go to pytest; -n 4 runs
#                                   four tests at a time (2 by default)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/environment.sh
make_environment test

markers="not slow"
if [ "${1:-}" = "--slow" ]; then
    markers="slow or not slow"
    shift
fi
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONHASHSEED=0
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
"$VENV/bin/python" -m pytest -n 2 --dist worksteal -m "$markers" "$@"
