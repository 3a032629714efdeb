#!/bin/bash
# A study as a SLURM job: `sbatch deploy/slurm.sh`, from a folder that every node sees.
#
# Fill in what a node has, how many nodes, how long; then the four lines under "what to run". The
# first node runs Ray's head, the driver and trials, the others run trials. Shortly before the time
# is up the study ends cleanly and the job is put back into the queue, where it goes on; so it does
# after a preemption or the loss of its first node. Another node that is lost is done without.
#SBATCH --job-name=samtune
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --open-mode=append
#SBATCH --output=samtune-%j.log
set -euo pipefail

# what to run
STORAGE=${STORAGE:-$PWD/studies} # at the same path on every node
NAME=${NAME:-wrn_rho}
FILE=${FILE:-$PWD/search_spaces/wrn_rho.yaml}
OPTIONS=(${OPTIONS:-}) # such as --plugin my_models
# source /shared/venv/bin/activate

here=${SAMTUNE_DEPLOY:-$SLURM_SUBMIT_DIR/deploy}
# A token of the job's own: without one, whoever reaches the ports runs code as you.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
export RAY_AUTH_TOKEN

# sed reads to the end: a scontrol that still writes after its reader has left would end the job.
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
address=$(getent ahostsv4 "$head" | awk 'NR == 1 { print $1 }')
port=$((20000 + SLURM_JOB_ID % 10000)) # nodes may be shared with other jobs
export RAY_ADDRESS=$address:$port
started=()
stop() { # those of this job alone: `ray stop` would end other jobs' as well
    kill "${started[@]}" 2>/dev/null || true
    wait "${started[@]}" 2>/dev/null || true
    rm -rf "/tmp/ray-$SLURM_JOB_ID"
}
trap stop EXIT

ray start --head --block --node-ip-address="$address" --port="$port" --include-dashboard=false \
    --num-cpus="$SLURM_CPUS_PER_TASK" --temp-dir="/tmp/ray-$SLURM_JOB_ID" &
started+=($!)
until ray health-check --address "$RAY_ADDRESS" >/dev/null 2>&1; do
    kill -0 "${started[0]}" # or it has ended, and so does the job
    sleep 1
done
others=$((SLURM_JOB_NUM_NODES - 1))
if ((others > 0)); then
    srun --nodes="$others" --ntasks="$others" --ntasks-per-node=1 --exclude="$head" --no-kill \
        ray start --block --address="$RAY_ADDRESS" --num-cpus="$SLURM_CPUS_PER_TASK" &
    started+=($!)
fi

is_time_up=
bash "$here/run-or-resume.sh" "$STORAGE" "$NAME" "$FILE" --wait-for-resources 10m \
    "${OPTIONS[@]}" &
driver=$!
trap 'is_time_up=yes; kill -TERM "$driver" 2>/dev/null || true' TERM
code=0
wait "$driver" || code=$?
if [ "$is_time_up" ]; then # the signal ended the waiting, and not yet the study
    wait "$driver" || code=$?
    stop
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
