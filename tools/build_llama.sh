#!/bin/bash
# Builds llama.cpp once into the cache: static libraries, headers, and llama-server for comparisons.
#
#   build_llama.sh                  fetch and build if it isn't there yet; print the prefix
#   build_llama.sh --print-prefix   only print where it is, or would be
#
# The prefix is ~/.cache/waystation/llama/<key>/ ($WAYSTATION_CACHE overrides the first part). The key
# names the version and a hash of everything that shapes the binary: source, edit, options,
# compiler, and the instruction sets that the compiler finds on this CPU. A machine with another CPU
# therefore builds again instead of stopping at an illegal instruction. The file `stamp` is written last: a
# prefix without it is unfinished. Nothing here needs the network once the source is in the cache.
set -euo pipefail

tools=$(cd "$(dirname "$0")" && pwd)
cache=${WAYSTATION_CACHE:-$HOME/.cache/waystation}
cc=${CC:-gcc}
cxx=${CXX:-g++}
jobs=${WAYSTATION_JOBS:-$(nproc)}

# Some virtual CPUs announce AMX, but executing it is illegal.
arch_flags="-march=native -mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
if [ "$(uname -m)" != x86_64 ]; then
    arch_flags="-mcpu=native"
fi

# The instruction sets come from arch_flags alone, so GGML's own choices are all off. Without OpenMP
# the threads of llama.cpp are its own. Without llamafile's matrix product a token's result doesn't
# depend on the batch it is computed in, which resuming an answer relies on (docs/adr/0004).
options=(
    -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DCMAKE_POSITION_INDEPENDENT_CODE=ON
    -DGGML_NATIVE=OFF -DGGML_SSE42=OFF -DGGML_AVX=OFF -DGGML_AVX2=OFF -DGGML_BMI2=OFF -DGGML_FMA=OFF
    -DGGML_F16C=OFF -DGGML_CCACHE=OFF -DGGML_OPENMP=OFF -DGGML_LLAMAFILE=OFF
    -DLLAMA_BUILD_COMMON=ON -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_APP=OFF
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF
    -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_ALL_WARNINGS=OFF
    ${WAYSTATION_LLAMA_OPTIONS:-}
)

# The one edit to the source (docs/adr/0004): attention looks at cells in steps of 32, not 256. Without
# flash attention every cell of a step costs, used or not.
edit_file=src/llama-kv-cache.cpp
edit_from='std::max(n_pad, 256u)'
edit_to='std::max(n_pad, 32u)'

pin() { # the pin's field $1 of llama.cpp's source
    python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["llama-source"][sys.argv[2]])' \
        "$tools/pins.json" "$1"
}

# What `-march=native` means on this machine, as the compiler itself spells it out.
instruction_sets() {
    # shellcheck disable=SC2086
    "$cc" $arch_flags -E -v -x c - </dev/null 2>&1 >/dev/null |
        grep '/cc1 ' | tr ' ' '\n' | grep -E '^-m' | grep -v '^-mamx-' | LC_ALL=C sort -u
}

file=$(pin file)
source_sha=$(pin sha256)
edit="$edit_file: $edit_from -> $edit_to"
key=$({
    echo "$source_sha $edit"
    "$cc" --version | head -n 1
    "$cxx" --version | head -n 1
    instruction_sets
    printf '%s\n' "${options[@]}"
} | sha256sum | cut -c1-12)
version=${file#llama_cpp_python-}
prefix=$cache/llama/${version%.tar.gz}-$key

case ${1:-} in
--print-prefix)
    echo "$prefix"
    exit 0
    ;;
"") ;;
*)
    echo "build_llama.sh: unknown argument '$1' (there is only --print-prefix)" >&2
    exit 2
    ;;
esac

say() { echo "build_llama: $*" >&2; }

for tool in cmake ninja "$cc" "$cxx" python3; do
    command -v "$tool" >/dev/null || {
        say "$tool is missing: install it, or run 'make setup'"
        exit 1
    }
done

# In a tree of its own beside the real one, so that what the last run left half done doesn't count.
unpack() { # unpack ARCHIVE FOLDER
    local found
    rm -rf "$2" "$2.part"
    mkdir -p "$2.part"
    # Only what is compiled: the archive also holds test models and Git data.
    tar -xzf "$1" -C "$2.part" --strip-components=3 --no-same-owner --exclude='*/.git' \
        --exclude='*/models/*.gguf' "${file%.tar.gz}/vendor/llama.cpp"
    found=$(grep -oF "$edit_from" "$2.part/$edit_file" | wc -l) || true
    if [ "$found" != 1 ]; then
        say "the edit '$edit' fits $found places of this source, not 1: look where the code went," \
            "change the edit in tools/build_llama.sh, and run the engine's tests"
        return 1
    fi
    python3 - "$2.part/$edit_file" "$edit_from" "$edit_to" <<'END'
import pathlib, sys
path = pathlib.Path(sys.argv[1])
path.write_bytes(path.read_bytes().replace(sys.argv[2].encode(), sys.argv[3].encode()))
END
    echo "$edit" >"$2.part/.edited"
    mv "$2.part" "$2"
}

mkdir -p "$cache/llama"
# Builds take turns: they share the source, and the second of one key finds the first one's result.
exec 9>"$cache/llama/lock"
flock 9
if [ -f "$prefix/stamp" ]; then
    echo "$prefix"
    exit 0
fi

archive=$("$tools/fetch.py" get llama-source)
src=$cache/llama/src-${source_sha:0:12}
if [ "$(cat "$src/.edited" 2>/dev/null || true)" != "$edit" ]; then
    say "unpacking the source"
    unpack "$archive" "$src"
fi

build=$cache/llama/build-$key
launcher=()
if command -v ccache >/dev/null; then
    launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
fi
# Spelled out rather than "native", so that ccache can't hand over objects made for another CPU.
# Relative paths let it use what another build folder left.
export CCACHE_BASEDIR=$cache/llama
flags=$(instruction_sets | tr '\n' ' ')
say "configuring in $build"
mkdir -p "$build"
env -u SOURCE_DATE_EPOCH CC="$cc" CXX="$cxx" cmake -S "$src" -B "$build" -G Ninja "${options[@]}" \
    "${launcher[@]}" -DCMAKE_C_FLAGS="$flags" -DCMAKE_CXX_FLAGS="$flags" \
    -DLLAMA_BUILD_NUMBER=0 -DLLAMA_BUILD_COMMIT="${source_sha:0:12}" >"$build/configure.log" 2>&1 || {
    tail -n 30 "$build/configure.log" >&2
    say "configuring failed; the whole log is $build/configure.log"
    exit 1
}
say "compiling with $jobs jobs (about 15 minutes on 2 cores the first time)"
cmake --build "$build" --target llama-server llama-common -- -j"$jobs" >&2

say "installing into $prefix"
rm -rf "$prefix"
mkdir -p "$prefix"/{lib,bin,include/common,include/vendor}
find "$build" -name '*.a' -exec cp {} "$prefix/lib/" \;
cp "$build/bin/llama-server" "$prefix/bin/"
cp "$src"/include/*.h "$src"/ggml/include/*.h "$prefix/include/"
(cd "$src/common" && find . -name '*.h' -exec cp --parents {} "$prefix/include/common/" \;)
cp -r "$src/vendor/nlohmann" "$src/vendor/sheredom" "$prefix/include/vendor/"
cp "$src/LICENSE" "$prefix/"
{
    echo "source $source_sha"
    echo "edit $edit"
    echo "flags $flags"
    printf 'option %s\n' "${options[@]}"
} >"$prefix/stamp.part"
mv "$prefix/stamp.part" "$prefix/stamp"
[ -n "${WAYSTATION_KEEP_BUILD:-}" ] || rm -rf "$build"
echo "$prefix"
