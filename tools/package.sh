#!/usr/bin/env bash
# Makes a bundle that runs where it is unpacked, on an x86-64 Linux with this glibc or a newer one:
# the binary, the shared libraries that it needs, configs, systemd units and READMEs of users. CUDA,
# NCCL and the driver are the system's.
#   tools/package.sh [--build-dir DIR] [--output build/tessera.tar.zst] [--ucx DIR] [--level 19]
#     --build-dir DIR  of the build; default: build/cuda-release, or where there is none build/cpu-release
#     --ucx DIR   folder of libucp.so.0 and its modules (DIR/ucx) to take instead of this system's;
#                 handoff between GPUs needs one that was built with CUDA. Default for a build with
#                 CUDA: the PyPI package libucx-cu13
#     --level N   how hard zstd tries; 1 takes seconds, for a try
# shellcheck source=tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"

build=build/cuda-release
[[ -x $build/bin/tessera ]] || build=build/cpu-release
output=build/tessera.tar.zst
ucx=''
level=19
while (($# > 0)); do
  (($# > 1)) || fail "$1 needs a value"
  case $1 in
    --build-dir) build=$2 ;;
    --output) output=$2 ;;
    --ucx) ucx=$2 ;;
    --level) level=$2 ;;
    *) fail "unknown argument $1; see the top of tools/package.sh" ;;
  esac
  shift 2
done
[[ -x $build/bin/tessera ]] || fail "no $build/bin/tessera: build it first (tools/demo.sh or tools/test.sh)"
command -v zstd > /dev/null || fail "zstd is not here: apt-get install zstd"
max_bytes=$((60 * 1024 * 1024))

stage=$root/build/package/tessera
rm -rf "$root/build/package"
mkdir -p "$stage/bin" "$stage/lib" "$stage/configs" "$stage/deploy"

# What every system that the bundle is for has, or must have of its own kind.
is_of_system() {
  case $1 in
    linux-vdso.so.* | ld-linux*.so.* | libc.so.* | libm.so.* | libpthread.so.* | libdl.so.* | \
      librt.so.* | libresolv.so.* | libcuda.so.* | libnvidia-ml.so.* | libcudart.so.* | libcublas*.so.* | libnccl.so.*)
      return 0 ;;
  esac
  return 1
}

# Copies the libraries that a file needs and the bundle does not have.
add_libraries() {
  local name path
  while read -r name path; do
    if ! is_of_system "$name" && [[ ! -e $stage/lib/$name ]]; then
      [[ -e $path ]] || fail "$1 needs $name, which this system does not have"
      cp -L "$path" "$stage/lib/$name"
    fi
  done < <(LD_LIBRARY_PATH=$stage/lib ldd "$1" | awk '$2 == "=>" {print $1, ($3 ~ /^\// ? $3 : "")}')
}

fetch_ucx() {
  local folder=$root/build/package/ucx
  python3 -m venv "$root/build/package/venv"
  "$root/build/package/venv/bin/pip" --quiet download --no-deps --dest "$folder" libucx-cu13==1.22.0
  python3 -m zipfile -e "$folder"/*.whl "$folder"
}

add_ucx() {
  local file
  for file in "$ucx"/libuc[psmt].so.0; do
    cp -L "$file" "$stage/lib/"
  done
  mkdir -p "$stage/lib/ucx"
  for file in "$ucx"/ucx/libu*.so.0; do
    [[ $file == *perftest* ]] || cp -L "$file" "$stage/lib/ucx/"
  done
  for file in "$ucx"/../../*.libs/libcudart*; do  # of the package's own, under a name of its own
    [[ ! -e $file ]] || cp -L "$file" "$stage/lib/"
  done
}

if [[ -z $ucx ]] && ldd "$build/bin/tessera" | grep -q libcublas; then
  step "get UCX with CUDA" fetch_ucx
  ucx=$root/build/package/ucx/libucx/lib
fi
if [[ -z $ucx ]]; then
  ucx=$(dirname "$(ldd "$build/bin/tessera" | awk '/libucp.so.0/ {print $3}')")
fi

cmake --install "$build" --prefix "$stage" --component runtime --strip >/dev/null
[[ -x $stage/bin/tessera ]] || fail "$build installs no tessera: configure it again (cmake --preset)"
add_ucx
add_libraries "$build/bin/tessera"
for module in "$stage"/lib/ucx/*; do
  add_libraries "$module"
done
strip --strip-unneeded "$stage"/lib/*.so* "$stage"/lib/ucx/*
cp configs/*.json configs/README.md "$stage/configs/"
cp --recursive deploy/proxy deploy/systemd deploy/README.md "$stage/deploy/"
cp LICENSE README.md "$stage/"
tar --create --directory "$root/build/package" tessera | zstd --quiet "-$level" -T0 --force -o "$output"
bytes=$(stat --format %s "$output")
((bytes <= max_bytes)) || fail "$output has $bytes bytes, more than $max_bytes"
say "$output: $((bytes / 1024 / 1024)) MiB, $(find "$stage/lib" -type f | wc -l) libraries"
