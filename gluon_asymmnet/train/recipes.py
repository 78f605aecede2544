"""Named training recipes: what was run, by whom, and what it is said to reach."""

from typing import Any, NamedTuple


class Recipe(NamedTuple):
    """Settings that differ from the defaults, with their source and claim."""

    source: str
    claim: str
    settings: dict[str, Any]


_COMMON = {
    "model": "asymmnet_large",
    "batch_size": 256,
    "num_gpus": 8,
    "num_workers": 48,
    "lr": 2.6,
    "lr_mode": "cosine",
    "num_epochs": 360,
    "warmup_epochs": 5,
    "wd": 3e-5,
    "no_wd": True,
    "label_smoothing": True,
}

RECIPES = {
    "published": Recipe(
        source="checkpoints/log.txt of the authors, line 1: the run that made their checkpoint",
        claim="75.42 % top-1, 92.51 % top-5 on 49,152 of the 50,000 validation images",
        settings={**_COMMON, "dropout": 0.2, "tag_name": "published"},
    ),
    "readme": Recipe(
        source="README of the authors, 'How to use'; their --last-gamma did nothing, ours does",
        claim="none of its own",
        settings={
            **_COMMON,
            "dtype": "float16",
            "dropout": 0.1,
            "last_gamma": True,
            "log_interval": 100,
            "tag_name": "readme",
        },
    ),
    "demo": Recipe(
        source="this project: scikit-learn's handwritten digits on a CPU in minutes",
        claim="97 % top-1 or better on the held-out digits",
        settings={
            "model": "asymmnet_small",
            "dataset": "custom",
            "data_backend": "opencv",
            "num_workers": 2,
            "input_size": 32,
            "crop_ratio": 1.0,
            "min_random_area": 0.6,
            "no_mirror": True,
            "batch_size": 64,
            "lr": 0.1,
            "lr_mode": "cosine",
            "num_epochs": 30,
            "warmup_epochs": 2,
            "wd": 1e-4,
            "no_wd": True,
            "label_smoothing": True,
            "log_interval": 10,
            "save_frequency": 0,
            "tag_name": "demo",
        },
    ),
}
