"""Own network, data set, optimizer and augmentation, without a change to the package.

asymmnet train --import examples/own_parts.py --model plain_net --dataset digits \
    --optimizer sign --augmentation invert --input-size 16 --lr 0.002 --num-epochs 8
"""

from mxnet import optimizer
from mxnet.gluon import nn
from sklearn.datasets import load_digits

import gluon_asymmnet


@gluon_asymmnet.register_model("plain_net")
def plain_net(classes, width=1.0):
    """Return two convolutions and a classifier."""
    net = nn.HybridSequential()
    for channels in (int(16 * width), int(32 * width)):
        net.add(nn.Conv2D(channels, 3, strides=2), nn.BatchNorm(), nn.Activation("relu"))
    net.add(nn.GlobalAvgPool2D(), nn.Flatten(), nn.Dense(classes))
    return net


@gluon_asymmnet.register_dataset("digits")
def digits(split):
    """Return images, labels and names of the classes: 1,500 digits to train, the rest to test."""
    images, labels = load_digits(return_X_y=True)
    part = slice(0, 1500) if split == "train" else slice(1500, None)
    images = (images[part].reshape(-1, 8, 8, 1) * 15.9).astype("uint8").repeat(3, axis=3)
    return images, labels[part], [f"digit {n}" for n in range(10)]


gluon_asymmnet.register_optimizer("sign", lambda config: optimizer.Signum(momentum=config.momentum))


@gluon_asymmnet.register_augmentation("invert")
def invert(rgb, rng):
    """Return the negative of every fifth image."""
    return 255 - rgb if rng.random() < 0.2 else rgb
