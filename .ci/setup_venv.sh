#!/bin/sh
# Create .venv when it is missing and install the project into it, editable.
#   sh .ci/setup_venv.sh [EXTRAS] [PYTHON]
# EXTRAS: of pyproject.toml, with commas; PYTHON: the interpreter, otherwise the first fitting one.
# Safe to interrupt and to run again; nothing outside .venv is touched.
set -u
cd "$(dirname "$0")/.." || exit 1
extras=${1:-}
wanted=${2:-}
fits='import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))'

fail() {
    echo "set-up: $1" >&2
    exit 1
}

version_of() {
    "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null || echo "not there"
}

find_python() {
    for candidate in ${wanted:-python3 python3.13 python3.12 python3.11 python3.10}; do
        if "$candidate" -c "$fits" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

if .venv/bin/python -c "$fits" 2>/dev/null; then
    .venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip >/dev/null 2>&1 ||
        fail ".venv has no pip; remove .venv and run the same command again"
else
    if [ -x .venv/bin/python ] && .venv/bin/python -c '' 2>/dev/null; then
        fail ".venv has Python $(version_of .venv/bin/python), 3.10 to 3.13 is needed; remove .venv and run again"
    fi
    python=$(find_python)
    if [ -z "$python" ]; then
        first=${wanted:-python3}
        fail "Python 3.10 to 3.13 is needed, $first is $(version_of "$first"); install one and name it, as in: make PYTHON=python3.12 test"
    fi
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python ($(version_of "$python")) lacks venv; install it (on Debian and Ubuntu: apt install python3-venv) or name another Python, as in: make PYTHON=python3.12 test"
    echo "set-up: creating .venv with $python ($(version_of "$python"))"
    "$python" -m venv .venv || fail "$python cannot create .venv; see the lines above"
fi

echo "set-up: installing maskvolume${extras:+ and its extras ($extras)} into .venv; the first time takes some minutes"
quiet=-q
[ -t 1 ] && quiet=
.venv/bin/python -m pip install --disable-pip-version-check $quiet -e ".${extras:+[$extras]}" ||
    fail "the installation failed; see the lines above, mend what they say and run the same command again"
