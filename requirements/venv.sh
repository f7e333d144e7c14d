#!/bin/sh
# Makes the virtual environment $2 with the Python $1. Debian's and Ubuntu's python3 come without the part of the standard library
# that puts pip into one: then it is installed, or, without the right to do so, asked for.
set -eu
if "$1" -c 'import ensurepip' 2>/dev/null; then
    exec "$1" -m venv "$2"
fi
if command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; then
    as_root=$([ "$(id -u)" = 0 ] || echo sudo)
    export DEBIAN_FRONTEND=noninteractive
    echo "installing python3-venv" >&2
    $as_root apt-get install -y -qq python3-venv >/dev/null 2>&1 || {
        $as_root apt-get update -qq
        $as_root apt-get install -y -qq python3-venv >/dev/null
    }
    exec "$1" -m venv "$2"
fi
echo "this Python comes without pip: install python3-venv (apt-get install python3-venv), then run make again" >&2
exit 1
