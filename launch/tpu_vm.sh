#!/usr/bin/env bash
# A Cloud TPU VM pod, from creation to deletion. See launch/README.md.
#
#   launch/tpu_vm.sh create|mount|start|watch|stop|delete [flags of semmim_jax.main, for start]
#
# NAME     of the pod                       ZONE     e.g. us-west4-a
# TYPE     e.g. v5litepod-256               RUNTIME  e.g. v2-alpha-tpuv5-lite
# IMAGE    built from launch/Dockerfile, target tpu
# BUCKET   of Cloud Storage; lies at /mnt/bucket on every host and in the container
# SPOT=1   takes a spot pod
set -euo pipefail

if [[ ! ${1:-} =~ ^(create|mount|start|watch|stop|delete)$ ]]; then
  echo 'usage: launch/tpu_vm.sh create|mount|start|watch|stop|delete [flags]' >&2
  exit 2
fi
: "${NAME:?of the pod}" "${ZONE:?e.g. us-west4-a}"
action=$1
shift

on() { # on WORKER COMMAND
  gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker="$1" --command="$2"
}

case $action in
  create)
    : "${TYPE:?e.g. v5litepod-256}" "${RUNTIME:?e.g. v2-alpha-tpuv5-lite}"
    gcloud compute tpus queued-resources create "$NAME" --node-id="$NAME" --zone="$ZONE" \
      --accelerator-type="$TYPE" --runtime-version="$RUNTIME" ${SPOT:+--spot}
    ;;
  mount)
    : "${BUCKET:?of Cloud Storage}"
    # The container's user is 1000.
    on all "sudo mkdir -p /mnt/bucket && mountpoint -q /mnt/bucket || \
      sudo gcsfuse -o allow_other --uid=1000 --gid=1000 --implicit-dirs '$BUCKET' /mnt/bucket"
    ;;
  start)
    : "${IMAGE:?built from launch/Dockerfile, target tpu}"
    printf -v flags ' %q' "$@"
    on all "sudo docker rm semmim 2>/dev/null; sudo docker run --detach --name=semmim \
      --privileged --network=host --shm-size=16g --volume=/mnt/bucket:/mnt/bucket '$IMAGE'$flags"
    ;;
  watch) on 0 'sudo docker logs --follow --tail=100 semmim' ;;
  stop) on all 'sudo docker stop --time=300 semmim' ;;
  delete)
    gcloud compute tpus queued-resources delete "$NAME" --zone="$ZONE" --force --quiet
    ;;
esac
