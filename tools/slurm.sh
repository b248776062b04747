#!/usr/bin/env bash
# Train on n nodes of 4 GPUs under SLURM:
#
#     sbatch --nodes=2 tools/slurm.sh \
#         recipes/TinyStories/LM/train.py \
#         recipes/TinyStories/LM/hparams/1B.yaml --precision bf16
#
# The arguments are those of the recipe; sbatch's own options (--account,
# --partition, --time, --gpus-per-node) go before the script's name. GPUS
# overrides the number of ranks a node; RESTARTS, how often they start again
# after one of them has died.
#
# The same command resumes: a job that is requeued (preempted, or a node was
# lost) goes on from the newest checkpoint, and a finished one trains no more.
#
#SBATCH --job-name=speechbrain_slm
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: sbatch [options] tools/slurm.sh train.py file.yaml [...]" >&2
    exit 2
fi
: "${SLURM_JOB_ID:?start this script with sbatch}"

gpus="${GPUS:-4}"
# The node on which the ranks meet, and a port that other jobs do not take.
host="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
port=$((20000 + SLURM_JOB_ID % 20000))
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((${SLURM_CPUS_PER_TASK:-4} / gpus))}"

# A requeued job has the same number: it must not meet what is left of itself.
run="$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}"

# --kill-on-bad-exit: a node whose ranks have failed for good ends the others,
# which would wait for it until the time limit.
exec srun --kill-on-bad-exit=1 torchrun \
    --nnodes="$SLURM_JOB_NUM_NODES" \
    --nproc_per_node="$gpus" \
    --max-restarts="${RESTARTS:-3}" \
    --rdzv_id="$run" \
    --rdzv_backend=c10d \
    --rdzv_endpoint="$host:$port" \
    "$@"
