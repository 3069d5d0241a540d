#!/usr/bin/env bash
# GPU nodes under Slurm, one process a node. See launch/README.md.
#
#   sbatch --nodes=4 launch/slurm.sh --config=configs/pretrain.py --workdir=SHARED/RUN [flags]
#
#SBATCH --job-name=semmim
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=semmim-%j.log
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?to be submitted with sbatch from the root of the project}"

# JAX finds address, number and index of the processes in Slurm's variables. It would then take one
# GPU for each process.
gpus=${SLURM_GPUS_PER_NODE:-8}
JAX_LOCAL_DEVICE_IDS=$(seq --separator=, 0 $((gpus - 1)))
export JAX_LOCAL_DEVICE_IDS

exec srun --kill-on-bad-exit=1 --label .venv/bin/python -m semmim_jax.main "$@"
