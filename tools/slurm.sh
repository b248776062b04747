#!/usr/bin/env bash
# Any recipe under SLURM. Training on n nodes of 4 GPUs:
#
#     sbatch --nodes=2 tools/slurm.sh recipes/TinyStories/LM/train.py \
#         recipes/TinyStories/LM/hparams/1B.yaml --run interleaved --precision bf16
#
# A data stage as array jobs (synthesis, translation, units: those that have
# a key `job`), which start and end when they like; the last run, without an
# array, makes what they left and puts the pieces together:
#
#     sbatch --array=0-7 --gpus-per-node=1 tools/slurm.sh <train.py> <file.yaml> \
#         --units_folder <one for all> --output_folder <logs>
#
# The arguments are those of the recipe; sbatch's own options (--account,
# --partition, --time, --gpus-per-node) go before the script's name. GPUS, by
# default SLURM's, is the number of ranks a node; 0: no GPU, and RANKS of them,
# by default one a CPU. RESTARTS: how often they start again when one has died.
#
# The same command resumes: a job that is requeued (preempted, or a node was
# lost) goes on from the newest checkpoint or piece; a finished one does nothing.
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

cpus="${SLURM_CPUS_PER_TASK:-4}"
gpus="${GPUS:-${SLURM_GPUS_ON_NODE:-4}}"
ranks="$gpus"
arguments=("$@")
if [ "$gpus" -eq 0 ]; then
    ranks="${RANKS:-$cpus}"
    arguments+=(--device cpu)
fi
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((cpus / ranks))}"

if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    # --array=3-7:2 is 3, 5, 7: jobs 0, 1 and 2 of 3.
    first="${SLURM_ARRAY_TASK_MIN:-0}" step="${SLURM_ARRAY_TASK_STEP:-1}"
    jobs="${SLURM_ARRAY_TASK_COUNT:?SLURM does not say how many jobs there are}"
    job=$(((SLURM_ARRAY_TASK_ID - first) / step))
    if [ $(((SLURM_ARRAY_TASK_MAX - first) / step + 1)) -ne "$jobs" ]; then
        echo "error: an array with gaps would leave shares to nobody;" \
            "expected --array=<first>-<last>" >&2
        exit 2
    fi
    # Two runs never log to one folder; each job gets one inside.
    found=
    for i in "${!arguments[@]}"; do
        case "${arguments[$i]}" in
        --output_folder) arguments[i + 1]+="/$job" found=yes ;;
        --output_folder=*) arguments[i]+="/$job" found=yes ;;
        esac
    done
    if [ -z "$found" ]; then
        echo "error: array jobs need --output_folder, for a folder of logs" \
            "each, and the data in a folder of its own (see the README)" >&2
        exit 2
    fi
    arguments+=(--job "$job" --num_jobs "$jobs")
fi

# The node on which the ranks meet, and a port that other jobs do not take.
# Not by head: under pipefail, hosts that it does not read end this script.
host="$(scontrol show hostnames "$SLURM_JOB_NODELIST")"
host="${host%%$'\n'*}"
port=$((20000 + SLURM_JOB_ID % 20000))
# A requeued job has the same number: it must not meet what is left of itself.
run="$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}"

# --kill-on-bad-exit: a node whose ranks have failed for good ends the others,
# which would wait for it until the time limit. read_timeout: torchrun itself
# would give up after a minute without the first node, before its ranks do. The
# two dashes: torchrun would take the recipe's --run for its own --run-path.
exec srun --kill-on-bad-exit=1 torchrun \
    --nnodes="$SLURM_JOB_NUM_NODES" \
    --nproc_per_node="$ranks" \
    --max-restarts="${RESTARTS:-3}" \
    --rdzv_id="$run" \
    --rdzv_backend=c10d \
    --rdzv_endpoint="$host:$port" \
    --rdzv_conf=read_timeout=600 \
    -- "${arguments[@]}"
