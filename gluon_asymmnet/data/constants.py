"""Numbers about ImageNet.  Unit of colours: 8-bit RGB, 0 to 255."""

# Per-channel mean and standard deviation of the ImageNet training images, in R, G, B order.
# Source: the defaults of GluonCV's scripts/classification/imagenet/train_imagenet.py
# (--rgb-mean, --rgb-std), which the authors' train.py keeps.
IMAGENET_MEAN = (123.68, 116.779, 103.939)
IMAGENET_STD = (58.393, 57.12, 57.375)

# Images in ILSVRC-2012 (Russakovsky et al. 2015, arXiv:1409.0575, table 2).
IMAGENET_TRAIN_IMAGES = 1_281_167
IMAGENET_CLASSES = 1000

# The 200-class subset behind the authors' `train.py --dataset imagenet200`.
IMAGENET200_TRAIN_IMAGES = 258_758
IMAGENET200_CLASSES = 200
