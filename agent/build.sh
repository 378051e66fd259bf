#!/bin/sh
# Builds the agent: build.sh {release|asan|fuzz} [OUT]
# release is static, by zig; asan and fuzz are for tests, by Debian's clang. $PYTHON must have the `ziglang` wheel,
# $SANDBOXD_AGENT_TARGET chooses another machine (x86_64-linux-musl, aarch64-linux-musl).
set -eu
kind=${1:-release}
here=$(cd "$(dirname "$0")" && pwd)
out=${2:-$here/build/$kind/agent}
warnings="-std=gnu11 -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wmissing-declarations
  -Wpointer-arith -Wformat=2 -Wswitch-enum -Wswitch-default -Wconversion -Wvla -Wundef -Wnull-dereference
  -fstack-protector-strong -D_GNU_SOURCE"
mkdir -p "$(dirname "$out")"
case $kind in
release)
    ${PYTHON:-python3} -m ziglang cc -target "${SANDBOXD_AGENT_TARGET:-x86_64-linux-musl}" $warnings -D_FORTIFY_SOURCE=2 \
        -O2 -static -s -fno-sanitize=undefined "$here"/src/*.c -o "$out"
    ;;
asan)
    clang $warnings -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all \
        "$here"/src/*.c -o "$out"
    ;;
fuzz)
    clang $warnings -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -I"$here/src" \
        "$here"/src/frame.c "$here"/src/frames_gen.c "$here"/tests/fuzz_frame.c -o "$out"
    ;;
*)
    echo "build.sh: \`$kind\` is none of release, asan, fuzz" >&2
    exit 2
    ;;
esac
