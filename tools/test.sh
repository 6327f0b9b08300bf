#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test that needs no GPU. Safe to run again.
#   tools/test.sh         optimised build (with the CUDA backend where nvcc and nccl.h are found) and all tests,
#                         then unit tests under ASan and UBSan
#   tools/test.sh --fast  without the sanitizer build
# shellcheck source=tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

with_sanitizers=yes
case ${1:-} in
  '') ;;
  --fast) with_sanitizers=no ;;
  *) fail "unknown argument $1; usage: tools/test.sh [--fast]" ;;
esac
cd "$root"

make_venv() {
  local venv=$root/build/venv
  [[ -x $venv/bin/python ]] || python3 -m venv "$venv"
  "$venv/bin/pip" install --disable-pip-version-check --progress-bar off -r tests/e2e/requirements.txt
  "$venv/bin/python" tests/deploy/install_helm.py
}

# run_ctest PRESET [ctest arguments]: says at the end of its output how that of each failed test ends.
run_ctest() {
  local preset=$1
  shift
  ctest --preset "$preset" --output-on-failure --no-tests=error "$@" && return
  local status=$? logs=$root/build/$preset/Testing/Temporary name
  while IFS=: read -r _ name; do
    printf -- '--- end of %s\n' "$name"
    sed -n "/^[0-9]*\/[0-9]* Testing: $name\$/,/^<end of output>/p" "$logs/LastTest.log" | tail -n 20
  done <"$logs/LastTestsFailed.log"
  return $status
}

num_passed=0
num_skipped=0
# run_tests PRESET [ctest arguments]: also adds to the counts of passed and of skipped tests.
run_tests() {
  local preset=$1
  shift
  step_tail_lines=80 step "test $preset" run_ctest "$preset" "$@"
  tail -n 12 "$step_log"
  local total skipped
  total=$(sed -n 's/.*tests passed.* out of \([0-9]*\).*/\1/p' "$step_log")
  skipped=$(grep -c '(Skipped)$' "$step_log" || true)  # ctest counts them as passed
  num_passed=$((num_passed + total - skipped))
  num_skipped=$((num_skipped + skipped))
}

bash tools/bootstrap_debian.sh --test
export PATH=$root/build/promtool/usr/bin:$PATH
step 'include check' python3 tools/check_includes.py
step 'format check' bash tools/format.sh --check
if command -v shellcheck >/dev/null; then
  step 'shellcheck' shellcheck -x tools/*.sh .ci/run
fi
step 'python packages' make_venv
say "$(build/venv/bin/python -B tests/deploy/programs.py)"

# One build for both: with a CUDA toolkit the GPU's code is compiled with the rest, and not run.
release=cpu-release
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
if [[ -x $nvcc ]] && "$nvcc" --version | grep -q 'release 1[3-9]\.'; then
  for header in "$(dirname "$(realpath "$nvcc")")"/../include/nccl.h /usr{,/local}/include/nccl.h; do
    [[ ! -e $header ]] || release=cuda-release
  done
fi
step "configure $release" cmake --preset "$release" -DTESSERA_PYTHON="$root/build/venv/bin/python"
step "build $release" cmake --build --preset "$release"
run_tests "$release"
if [[ $with_sanitizers == yes ]]; then
  step 'configure cpu-debug' cmake --preset cpu-debug
  step 'build cpu-debug' cmake --build --preset cpu-debug --target unit_tests
  run_tests cpu-debug -L unit
fi
say "all tests passed in $SECONDS s"
say "$num_passed passed, 0 failed, $num_skipped skipped"
