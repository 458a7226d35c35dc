#!/usr/bin/env bash
# schemathesis in an environment of its own, .venv-fuzz: it talks HTTP only, and brings a dozen packages.
set -euo pipefail
cd "$(dirname "$0")/../.."

if test -e .venv-fuzz/.installed; then exit; fi
test -x .venv-fuzz/bin/python || "${PYTHON:-python3}" -m venv .venv-fuzz
.venv-fuzz/bin/python -m pip install --quiet --disable-pip-version-check \
    --constraint tests/hostile/constraints.txt schemathesis
touch .venv-fuzz/.installed
