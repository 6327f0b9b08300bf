#!/usr/bin/env bash
# Installs the packages that building and testing need, on Debian 12 (Ubuntu 24.04: untested).
#   tools/bootstrap_debian.sh         what building, running and most tests need
#   tools/bootstrap_debian.sh --test  also what tests of the console, proxies, the bundle and alert rules need: a
#                                     browser, haproxy, zstd, and promtool in build/promtool
#   tools/bootstrap_debian.sh --dev   the first, and formatter, linters, clang (fuzz targets) and ccache
# Runs as root or with sudo; asks the package manager for nothing when nothing is missing.
# shellcheck source=tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# "a|b": the first that the distribution knows; "?" at the end: none is fine.
packages=(
  g++ cmake ninja-build pkg-config git ca-certificates
  'libboost1.81-dev|libboost-dev' libdnnl-dev libpcre2-dev libutf8proc-dev prometheus-cpp-dev
  libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc libucx-dev
  libeigen3-dev libspdlog-dev nlohmann-json3-dev libcli11-dev libssl-dev
  libgtest-dev libgmock-dev python3 python3-venv
)
test_packages=('chromium-headless-shell|?' haproxy zstd)
dev_packages=(clang libclang-rt-14-dev clang-format-14 clang-tidy-14 ccache shellcheck)

with_promtool=no
case ${1:-} in
  '') ;;
  --test)
    packages+=("${test_packages[@]}")
    command -v promtool >/dev/null || with_promtool=yes
    ;;
  --dev) packages+=("${dev_packages[@]}") ;;
  *) fail "unknown argument $1; usage: tools/bootstrap_debian.sh [--test|--dev]" ;;
esac

command -v apt-get >/dev/null || fail 'no apt-get here: install the packages named in this script by hand'

is_installed() {
  [[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# The package prometheus would start a server: only its promtool is wanted.
unpack_promtool() {
  local folder=$root/build/promtool
  mkdir -p "$folder"
  cd "$folder"
  apt-get download prometheus || { "${as_root[@]}" apt-get update && apt-get download prometheus; }
  dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
  rm prometheus_*.deb
}
get_promtool() {
  [[ $with_promtool == no || -x $root/build/promtool/usr/bin/promtool ]] && return
  (unpack_promtool) >"$log_dir/promtool.log" 2>&1 && say 'ok promtool' && return
  say "skipped: no promtool, tests of alert rules will not run; log: $log_dir/promtool.log"
}

as_root=()
missing=()
for choice in "${packages[@]}"; do
  IFS='|' read -ra names <<<"$choice"
  found=no
  for name in "${names[@]}"; do
    is_installed "$name" && found=yes
  done
  [[ $found == yes ]] || missing+=("$choice")
done
if ((${#missing[@]} == 0)); then
  say 'ok packages: nothing is missing'
  get_promtool
  exit 0
fi
say "packages that are missing: ${missing[*]}"

if ((EUID != 0)); then
  command -v sudo >/dev/null || fail 'packages are missing: run this as root or install sudo'
  sudo -v || fail 'packages are missing and sudo was refused'
  as_root=(sudo)
fi

step 'update package lists' "${as_root[@]}" apt-get update
names_to_install=()
for choice in "${missing[@]}"; do
  IFS='|' read -ra names <<<"$choice"
  for name in "${names[@]}"; do
    if [[ $name == '?' ]]; then
      say "skipped: this distribution has no package $choice"
      continue 2
    fi
    if apt-cache show "$name" >/dev/null 2>&1; then
      names_to_install+=("$name")
      continue 2
    fi
  done
  fail "this distribution has no package $choice"
done
step 'install packages' "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y --no-install-recommends "${names_to_install[@]}"
get_promtool
