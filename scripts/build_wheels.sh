#!/usr/bin/env bash
# Collects this program and what it needs as wheels, for a machine without a network:
#
#     scripts/build_wheels.sh wheels           # all but torch, which such machines mostly have
#     scripts/build_wheels.sh wheels --torch   # torch too: 200 MB or more
#     scripts/build_wheels.sh wheels --alone   # the program alone, from what is installed here
#
# There: python -m pip install --no-index --find-links wheels fwi-refine
# The wheel holds a compiled kernel, so build it on Linux with the same Python version and a C
# library that is no newer than the other machine's; without its kernel the program is slow.
set -euo pipefail
out=$(realpath -m "${1:?usage: scripts/build_wheels.sh DIR [--torch|--alone]}")
cd "$(dirname "$0")/.."
mkdir -p "$out"
if [ "${2:-}" = --alone ]; then
    python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$out" .
    exit
fi
python -m pip wheel --quiet --no-deps --wheel-dir "$out" .
needs=$(python - "${2:-}" <<'PYTHON'
import configparser
import sys

config = configparser.ConfigParser()
config.read("setup.cfg")
needs = config["options"]["install_requires"].split()
needs += config["options.extras_require"]["plot"].split()
print("\n".join(n for n in needs if "--torch" in sys.argv or not n.startswith("torch")))
PYTHON
)
constraint=$(mktemp)
trap 'rm -f "$constraint"' EXIT
echo "$needs" >"$constraint"
python -m pip download --quiet --only-binary :all: --dest "$out" --requirement "$constraint"
