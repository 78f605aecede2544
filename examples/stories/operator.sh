#!/bin/sh
# A training from the operator's side: records, settings in a file, a stop, the resume, the report, two workers.
# Run it in an empty folder: sh operator.sh
set -e

# Stand-ins for the data: one folder per class.
asymmnet records demo digits

# Records in a folder that is made; each image of them is checked.
for part in train val; do
    asymmnet records build digits/images/$part data/$part --shuffle-seed 0
done
asymmnet records verify data --json - > verified.json

# All settings in a file; flags win, and the whole is printed.
cat > run.yaml <<'END'
recipe: demo
num-epochs: 3
width: 0.35
num-training-samples: 256
checkpoint-steps: 2
rec-train: data/train.rec
rec-val: data/val.rec
save-dir: runs of mine
END
asymmnet train --config run.yaml --print-config > settings.json

# A stop, as of a scheduler: status 143, and a command that resumes as it is pasted.
RUN="runs of mine/custom/asymmnet_small_demo"
asymmnet train --config run.yaml --log-interval 1 > first.log &
worker=$!
until ls "$RUN"/checkpoints/step-* > /dev/null 2>&1; do sleep 0.1; done
kill -TERM $worker
wait $worker && exit 1 || status=$?
echo "stopped with status $status"
asymmnet status "$RUN"
sh -c "$(sed -n 's/^stopped after .*; to resume: //p' first.log)"

# What came out
asymmnet status "$RUN" --json - > status.json
asymmnet checkpoints verify "$RUN"
asymmnet report "$RUN" -o report.html

# The same on two workers; on a cluster: docs/slurm.sh, docs/kubernetes.yaml
asymmnet launch -n 2 -- asymmnet train --config run.yaml --num-epochs 1 --batch-size 32 --tag-name two
