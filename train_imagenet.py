"""Train an image classifier; ``--help`` lists every setting and its default."""

import sys

from gluon_asymmnet.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]], prog="train_imagenet.py"))
