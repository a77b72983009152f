#!/bin/bash
# clang-tidy with this project's checks (.clang-tidy) over folders of src/.
#
#   tidy.sh [FOLDER ...]     default: base journal ledger broker
#
# Needs Debian's clang-tidy-16 (not part of `make setup`: it is large, and only this uses it) and a build
# in build/release, whose flags it takes. Ends with 1 when anything was found.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v clang-tidy-16 >/dev/null || {
    echo "tidy: clang-tidy-16 is missing: apt-get install clang-tidy-16" >&2
    exit 1
}
[ -f build/release/compile_commands.json ] || {
    echo "tidy: build/release is not built: run 'make build'" >&2
    exit 1
}
(($#)) || set -- base journal ledger broker

# clang 16 calls C++23 "c++2b". It can read gcc's std::expected, but says of itself that it can't.
arguments=(-p build/release --quiet --warnings-as-errors='*' --extra-arg=-std=c++2b
    --extra-arg=-U__cpp_concepts --extra-arg=-D__cpp_concepts=202002
    --extra-arg=-Wno-builtin-macro-redefined)
find "${@/#/src/}" -name '*.cc' ! -name '*_test.cc' -print0 |
    xargs -0 -P "${WAYSTATION_JOBS:-$(nproc)}" -n 1 clang-tidy-16 "${arguments[@]}" 2> >(grep -v 'warnings generated\|treated as error' >&2)
echo "tidy: nothing found in $*"
