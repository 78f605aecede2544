#!/bin/sh
# A study with own parts: network, data set, optimizer and augmentation from one file, a recipe, a sweep, a kill and
# its resume, the evaluation on some of the classes, the export, and the calls of GluonCV and timm.
# Run it in an empty folder: sh researcher.sh.  EPOCHS=8 reaches half of the digits: the network is tiny.
set -e
EPOCHS=${EPOCHS:-3}
EXAMPLES=${EXAMPLES:-$(dirname "$0")/..}
cp "$EXAMPLES/own_parts.py" parts.py

# A recipe: the settings of the study in a file, with its claim on top.
cat > study.json <<END
{
 "source": "our study, table 1",
 "claim": "50 % top-1 after 8 epochs",
 "run": "not yet",
 "settings": {"model": "plain_net", "dataset": "digits", "optimizer": "sign", "augmentation": ["invert"],
              "input_size": 16, "num_epochs": $EPOCHS, "warmup_epochs": 0, "checkpoint_steps": 5, "num_workers": 1}
}
END

# A run for each rate, and the table of them.  The first run is killed before; the sweep resumes it.
SWEEP="study lr=0.004,0.001 -- --import parts.py --recipe study.json"
$(asymmnet sweep --print $SWEEP | head -n 1) > killed.log &
worker=$!
RUN=study/digits/plain_net_lr=0.004
until ls "$RUN"/checkpoints/step-* > /dev/null 2>&1; do sleep 0.1; done
kill -KILL $worker
wait $worker || echo "killed: status $?"
asymmnet sweep $SWEEP > sweep.log
grep "resumed from" sweep.log
asymmnet runs study
asymmnet runs study --json > runs.json

# A set with two of the classes, as ImageNet-A and -R have some of ImageNet's
asymmnet records demo other
mkdir two
cp -r other/images/val/3 other/images/val/5 two
echo '{"3": "digit 3", "5": "digit 5"}' > map.json
asymmnet eval imagenet "$RUN" --import parts.py --data-dir two --label-map map.json --json two.json

# The exported graph is complete: no module is needed any more.
asymmnet export onnx "$RUN" exported --import parts.py
asymmnet predict two/3 --model exported --top 1 --json - > answers.json

# Our names in GluonCV's registry, and in timm's where it is installed
python - <<'END'
import gluon_asymmnet
from gluoncv.model_zoo import get_model

net = get_model("asymmnet_small", classes=10)
net.initialize()
print("from GluonCV:", type(net).__name__)
net.save_parameters("small.params")
try:
    import timm
except Exception as error:
    print("timm is not installed, or cannot be imported:", type(error).__name__)
else:
    import gluon_asymmnet.torch

    weights = {"file": "small.params"}
    net = timm.create_model("asymmnet_small_100", num_classes=10, pretrained=True, pretrained_cfg_overlay=weights)
    print("from timm:", type(net).__name__)
END
