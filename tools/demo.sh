#!/usr/bin/env bash
# From nothing to an answer: installs what is missing, builds, starts a router, a prefill worker and
# a decode group of two TPLA ranks as separate processes on the bundled model, asks one chat question
# with streaming, says what each rank holds and how long the handoff took, and stops. Safe to run
# again.
#   tools/demo.sh         stops the processes at the end
#   tools/demo.sh --keep  leaves them running and says how to stop them
# shellcheck source=tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

keep=no
case ${1:-} in
  '') ;;
  --keep) keep=yes ;;
  *) fail "unknown argument $1; usage: tools/demo.sh [--keep]" ;;
esac
cd "$root"

model=configs/demo_model
binary=build/cpu-release/bin/tessera
declare -A pids=()

stop_roles() {
  local role status=0
  for role in router prefill decode; do  # in this order nobody waits for somebody gone
    [[ -n ${pids[$role]:-} ]] || continue
    kill -TERM "${pids[$role]}" 2>/dev/null || true
    wait "${pids[$role]}" || status=$?
    unset "pids[$role]"
  done
  ((status == 0)) || fail "stopping the roles; logs: $log_dir/demo_*.log"
}
trap 'stop_child; [[ $keep == yes ]] || stop_roles' EXIT

# start_role ROLE flags...: in the background, with a log of its own.
start_role() {
  local role=$1
  shift
  : >"$log_dir/demo_$role.log"
  nohup "$binary" "$role" "$model" "$@" >"$log_dir/demo_$role.log" 2>&1 </dev/null &
  pids[$role]=$!
}

# value_in_log ROLE EVENT KEY: waits for the log line and prints the key's value.
value_in_log() {
  local log=$log_dir/demo_$1.log value=''
  for ((i = 0; i < 600; ++i)); do
    value=$(sed -n "s/.* $2 .*\b$3=\([^ ]*\).*/\1/p" "$log" | head -n 1)
    [[ -z $value ]] || break
    if ! kill -0 "${pids[$1]}" 2>/dev/null; then
      tail -n 5 "$log" >&2
      fail "start the $1; log: $log"
    fi
    sleep 0.1
  done
  [[ -n $value ]] || fail "the $1 was not ready within 60 s; log: $log"
  printf '%s' "$value"
}

# metric URL NAME [LABEL]: the value of one series.
metric() {
  python3 - "$@" <<'PY'
import sys, urllib.request
url, name, label = [*sys.argv[1:], ""][:3]
for line in urllib.request.urlopen(url + "/metrics", timeout=10).read().decode().splitlines():
    if line.split("{")[0].split(" ")[0] == name and label in line:
        print(line.rsplit(" ", 1)[1])
        break
PY
}

bash tools/bootstrap_debian.sh
step 'configure' cmake --preset cpu-release
step 'build' cmake --build --preset cpu-release --target tessera

# 8000 when nobody listens there, else any free port; the log says which one it became.
port=8000
if (exec 3<>/dev/tcp/127.0.0.1/8000) 2>/dev/null; then
  port=0
fi
# The calibration in the model's folder makes them tpla.
start_role prefill --port 0 --rpc-port 0
start_role decode --port 0 --rpc-port 0 --tensor-parallel-size 2
prefill_address=$(value_in_log prefill rpc_listening address)
decode_address=$(value_in_log decode rpc_listening address)
decode_url=$(value_in_log decode listening url)
start_role router --port "$port" --rpc-port 0 \
  --prefill-workers "$prefill_address" --decode-workers "$decode_address"
url=$(value_in_log router listening url)
for ((i = 0; i < 300; ++i)); do
  python3 -c "import urllib.request as u; u.urlopen('$url/readyz', timeout=5)" 2>/dev/null && break
  sleep 0.1
done
say "ok router at $url, prefill worker at $prefill_address, decode group at $decode_address"

question='What can you do?'
say "question: $question"
printf 'answer:   '
python3 tools/ask.py --url "$url" "$question" || fail "ask the router; logs: $log_dir/demo_*.log"

whole=$(metric "$decode_url" tessera_cache_bytes_per_token_replicated)
held=$(metric "$decode_url" tessera_cache_bytes_per_token 'rank="0"')
seconds=$(metric "$decode_url" tessera_handoff_first_step_seconds_sum)
awk -v whole="$whole" -v held="$held" -v seconds="$seconds" 'BEGIN {
  printf "latent cache: each of 2 ranks holds %d bytes per token, %.0f %% of %d when replicated\n",
         held, 100 * held / whole, whole
  printf "handoff:      %.1f ms from the end of prefill to the end of the first decode step\n",
         1000 * seconds }'

cat <<TEXT

How to go on: all of it in one process with

  $binary serve $model

or one engine without a handoff with --combined. Then:

  curl $url/v1/chat/completions -H 'Content-Type: application/json' -d '{
    "model": "demo_model", "stream": true,
    "messages": [{"role": "user", "content": "$question"}]}'

  # Python, after: pip install openai
  from openai import OpenAI
  client = OpenAI(base_url="$url/v1", api_key="none")
  for chunk in client.chat.completions.create(model="demo_model", stream=True,
          messages=[{"role": "user", "content": "$question"}]):
      print(chunk.choices[0].delta.content or "", end="", flush=True)

TEXT
if [[ $keep == yes ]]; then
  say "the roles keep running; stop them with: kill ${pids[router]} ${pids[prefill]} ${pids[decode]}"
  exit 0
fi
stop_roles
say 'ok the roles have stopped'
