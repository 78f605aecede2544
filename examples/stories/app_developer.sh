#!/bin/sh
# From your own photos to a service: train or take a network, fine-tune it on your classes, export, predict, serve.
# Run it in an empty folder: sh app_developer.sh.  EPOCHS=9 trains the first network well (minutes on two cores).
set -e
EPOCHS=${EPOCHS:-3}
PORT=${PORT:-8000}
EXAMPLES=${EXAMPLES:-$(dirname "$0")/..}

# A network to start from.  `--finetune published` below would take the authors' weights of ImageNet instead.
asymmnet records demo digits
asymmnet train --recipe demo --num-epochs "$EPOCHS" --save-dir runs \
    --rec-train digits/train.rec --rec-val digits/val.rec

# Stand-ins for your own photos: one folder per class.  The network knows "3" and "5"; "eight" is new.
for part in train val; do
    mkdir -p photos/$part
    cp -r digits/images/$part/3 digits/images/$part/5 photos/$part
    cp -r digits/images/$part/8 photos/$part/eight
done

# Network, input size and normalisation are those of the run; the log says which classes were copied.
asymmnet train --finetune runs/custom/asymmnet_small_demo --dataset custom --data-dir photos \
    --num-epochs 3 --batch-size 16 --save-dir runs --tag-name photos

# One ONNX file, compared with the network; it needs no MXNet any more.
asymmnet export onnx runs/custom/asymmnet_small_photos exported
asymmnet predict photos/val/eight --model exported --top 1 --json - > answers.json

# From Python
python - <<'END'
from pathlib import Path

from gluon_asymmnet import Predictor

predictor = Predictor("exported", "opencv")  # what the base install has
best = predictor.classify(sorted(Path("photos/val/eight").iterdir())[0])[0][0]
print(f"from Python: {best.name} {best.probability:.2f}")
END

# Over HTTP
python "$EXAMPLES/serving.py" exported --port "$PORT" &
trap 'kill $!' EXIT
for photo in photos/val/3/*; do
    curl --silent --show-error --fail --retry 60 --retry-connrefused --retry-delay 1 \
        --data-binary @"$photo" "http://127.0.0.1:$PORT/classify"
    echo
done > served.jsonl
