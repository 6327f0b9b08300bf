#!/usr/bin/env bash
# 5,000 requests of all lengths through two prefill workers, two decode groups and a router, all on
# loopback, while one request in ten is left by its client and a worker is killed every 20 seconds.
# Every answer is compared with that of one combined engine. Build first (tools/test.sh does).
#   tools/soak.sh                      the bundled model
#   tools/soak.sh --model DIR [...]    another one; further arguments go to the test
# shellcheck source=tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cd "$root"
binary=build/cpu-release/bin/tessera
[[ -x $binary ]] || fail "no $binary: run tools/test.sh or tools/demo.sh first"
exec python3 tests/e2e/cluster_soak_test.py --server "$binary" --model configs/demo_model \
  --seconds 0 --requests 5000 --kill-every 20 "$@"
