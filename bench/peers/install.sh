#!/usr/bin/env bash
# One environment for each peer, in .venv-peers: never a dependency of ours, never two peers together.
# Names of environments, or none for all of them.
set -euo pipefail
cd "$(dirname "$0")/../.."

PYTHON=${PYTHON:-python3}
WANTED=" $* "
# torch first, so that no peer's range can choose another; the rest is what our torch-free llc.models needs, so that the
# peers run the same forward passes as we do.
TORCH="torch numpy pydantic safetensors"

install() { # name of the environment, then what pip is to put into it, in order: one call for each
    local env=.venv-peers/$1 packages
    if test -e "$env/.installed" || [[ $WANTED == *[a-z]* && $WANTED != *" $1 "* ]]; then return; fi
    test -x "$env/bin/python" || "$PYTHON" -m venv "$env"
    for packages in "${@:2}"; do
        # shellcheck disable=SC2086 -- words on purpose
        "$env/bin/python" -m pip install --quiet --disable-pip-version-check \
            --constraint bench/peers/constraints.txt $packages
    done
    touch "$env/.installed"
}

install devinterp13 "$TORCH" "devinterp==1.3.2"
install devinterp20 "$TORCH" "devinterp==2.0.1"
# It asks for Python 3.12 because it imports itertools.batched: see README.md.
install canonical "$TORCH" "pandas tqdm" "--no-deps --ignore-requires-python canonical-interp==0.2.7"
# Other ways to find transitions.
install segmentation "numpy ruptures scikit-learn"
