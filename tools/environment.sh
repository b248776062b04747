# Sourced by the other scripts: makes .venv and installs the package into it.
#
#     make_environment [EXTRAS]     for example: make_environment test
#
# Sets $VENV. PYTHON names the interpreter of a new environment (python3).

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${VENV:-$ROOT/.venv}"

make_environment() {
    local extras="${1:-}" stamp want
    # What setup.py asks for, and where it was asked for: a moved or changed
    # checkout installs again.
    want="$ROOT $(sha256sum "$ROOT/setup.py" | cut -d ' ' -f 1)"
    stamp="$VENV/.installed-${extras:-base}"
    if [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then
        return
    fi
    if [ ! -x "$VENV/bin/python" ]; then
        echo "+ ${PYTHON:-python3} -m venv $VENV"
        "${PYTHON:-python3}" -m venv "$VENV"
    fi
    "$VENV/bin/python" - <<'PY'
import sys
if sys.version_info < (3, 10):
    sys.exit("Python %d.%d is too old; expected 3.10 or newer. Set PYTHON to "
             "a newer one and remove the environment." % sys.version_info[:2])
PY
    echo "+ $VENV/bin/pip install -e $ROOT${extras:+[$extras]}"
    "$VENV/bin/pip" install --quiet -e "$ROOT${extras:+[$extras]}"
    echo "$want" >"$stamp"
}

# If the script is killed, so is the recipe that it runs: it would otherwise go
# on unseen, and keep its folder locked.
with_me() {
    if setpriv --pdeathsig KILL true 2>/dev/null; then
        setpriv --pdeathsig KILL "$@"
    else
        "$@"
    fi
}
