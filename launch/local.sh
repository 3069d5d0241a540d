#!/usr/bin/env bash
# One run on N processes of this machine, over loopback. See launch/README.md.
#
#   launch/local.sh N --config=... --workdir=... [flags of semmim_jax.main]
#
# DEVICES=4   simulated CPU devices of each process (default: what JAX finds)
# TIMEOUT=60  seconds after which a process that is missing or silent counts as dead
# PYTHON      interpreter (default: .venv's, else python3)
#
# When a process ends with an error, the others have TIMEOUT seconds to end by themselves; then they
# are killed. The same command resumes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ ! ${1:-} =~ ^[1-9][0-9]*$ ]]; then
  echo 'usage: launch/local.sh N --config=FILE --workdir=FOLDER [flags of semmim_jax.main]' >&2
  exit 2
fi
processes=$1
shift
timeout=${TIMEOUT:-60}
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
if [[ -n ${DEVICES:-} ]]; then
  # The second flag: see simulated_devices in semmim_jax/training/distributed.py.
  export XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=$DEVICES \
    --xla_cpu_enable_concurrency_optimized_scheduler=false"
fi
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

pids=()
trap 'kill -TERM "${pids[@]}" 2>/dev/null || true' TERM INT
for ((i = 0; i < processes; i++)); do
  "$python" -m semmim_jax.main --coordinator="127.0.0.1:$port" --processes="$processes" \
    --process_id="$i" --distributed_timeout="$timeout" "$@" > >(sed -u "s/^/[$i] /") 2>&1 &
  pids+=($!)
done

# Reports each process as it ends; the first error starts the clock for the others.
status=0 deadline=
declare -A left
for i in "${!pids[@]}"; do left[$i]=${pids[$i]}; done
while ((${#left[@]})); do
  for i in "${!left[@]}"; do
    kill -0 "${left[$i]}" 2>/dev/null && continue
    code=0
    { wait "${left[$i]}"; } 2>/dev/null || code=$?
    unset "left[$i]"
    ((code == 0)) && continue
    echo "launch/local.sh: process $i ended with status $code" >&2
    if [[ -z $deadline ]]; then
      status=$code
      deadline=$((SECONDS + timeout))
    fi
  done
  if [[ -n $deadline ]] && ((${#left[@]} && SECONDS > deadline)); then
    echo "launch/local.sh: killing process ${!left[*]}, alive $timeout s later" >&2
    kill -KILL "${left[@]}" 2>/dev/null || true
  fi
  sleep 0.2
done
((status == 0)) || echo 'launch/local.sh: the same command resumes' >&2
exit "$status"
