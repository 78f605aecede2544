#!/bin/sh
#SBATCH --job-name=asymmnet
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --signal=TERM@120
#SBATCH --requeue
# Submit with DATA (train.rec, val.rec) and RUNS on a file system that all nodes share; flags are added to the command:
#   DATA=/scratch/imagenet RUNS=/scratch/runs sbatch docs/slurm.sh --batch-size 512
# Two minutes before the time limit Slurm sends SIGTERM: the run saves and ends with 143, and the job queues again, to go
# on from its checkpoint.
DMLC_PS_ROOT_URI=$(hostname)  # the batch script runs beside worker 0
export DMLC_PS_ROOT_URI

srun asymmnet train --kvstore dist_sync --recipe published --num-gpus 0 \
    --rec-train "$DATA/train.rec" --rec-val "$DATA/val.rec" --save-dir "$RUNS" "$@"
status=$?
if [ "$status" -eq 143 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
