#!/bin/sh
# From pictures labelled with labelImg to a detector that runs on folders and videos.
# Run it in an empty folder: sh detection.sh.  EPOCHS=60 trains it long enough to find most digits
# (about an hour on two cores); by default it only shows the way.
set -e
EPOCHS=${EPOCHS:-3}

# Stand-ins for your own pictures and video: digits, with an XML beside each picture, and a clip.
asymmnet voc demo digits --images "${IMAGES:-60},8"
mkdir labelled
cp digits/VOC2007/JPEGImages/*.jpg digits/VOC2007/Annotations/*.xml labelled
python - <<'END'
import cv2, glob

clip = cv2.VideoWriter("clip.mp4", cv2.VideoWriter_fourcc(*"mp4v"), 5, (320, 240))
for name in sorted(glob.glob("digits/VOC2007/JPEGImages/*.jpg"))[:10]:
    clip.write(cv2.resize(cv2.imread(name), (320, 240)))
clip.release()
END

# One folder with lists and class names; a fifth of the images is for validation.
asymmnet voc from-labelimg labelled data/mine --val 0.2
asymmnet voc check data

# Train; repeat the command to resume.  --pretrained-base published takes ImageNet's weights.
asymmnet train-ssd --network asymmnet_small --dataset custom --dataset-root data \
    --train-splits mine_train --val-splits mine_val --no-mirror \
    --batch-size 8 --lr 0.01 --lr-mode cosine --epochs "$EPOCHS" --save-prefix runs/
RUN=runs/ssd_300_asymmnet_small_custom
asymmnet eval voc "$RUN" --dataset-root data --val-splits mine_val --per-class

# One file for ONNX Runtime, compared with the network.
asymmnet export onnx "$RUN" exported

# A folder and a video: rows, tables, and copies with the boxes on them.
asymmnet detect labelled --model exported --json folder.json --coco folder.coco.json --annotate marked
asymmnet detect clip.mp4 --model exported --csv clip.csv --score 8=0.5 --annotate marked

# The set for other tools.
asymmnet voc to-yolo data yolo
asymmnet voc to-coco data coco
