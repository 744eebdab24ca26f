#!/usr/bin/env bash
# dev/install.sh ENVIRONMENT LOCK_FILE [--tools-only]
# Makes a virtual environment with exactly what the lock file pins, checked by hash, and the project itself
# (editable). Works where Debian's python3-venv package is missing: the lock file brings pip along.
set -euo pipefail

cd "$(dirname "$0")/.."
environment=$1 lock=$2 mode=${3:-}
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf 'install: %s\n' "$*"; }
fail() { printf 'install: %s\n' "$*" >&2; exit 1; }

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.11 python3 python3.12 python3.13 python3.14; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

python=$(find_python) || fail "Python 3.11 or newer is needed; name one with: make install PYTHON=/path/to/python3"

if ! "$environment/bin/python" -c '' 2>/dev/null; then
    say "$environment with $("$python" --version)"
    rm -rf "$environment"
    if "$python" -c 'import ensurepip' 2>/dev/null; then
        "$python" -m venv "$environment"
    else
        "$python" -m pip --version >/dev/null 2>&1 ||
            fail "this Python has neither venv nor pip; on Debian: apt-get install python3-venv"
        "$python" -m venv --without-pip "$environment"
    fi
fi

pip() {
    if "$environment/bin/python" -m pip --version >/dev/null 2>&1; then
        "$environment/bin/python" -m pip "$@"
    else
        "$python" -m pip --python "$environment/bin/python" "$@"
    fi
}

say "packages of $lock"
pip install --quiet --require-hashes --requirement "$lock"
if [ "$mode" != --tools-only ]; then
    say "the project itself"
    pip install --quiet --no-deps --no-build-isolation --no-index --editable .
fi
touch "$environment/.installed"
say "done"
