import dataclasses
import json
import re

import pytest

from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.registry import ModelSpec
from gluon_asymmnet.train.classifier_config import ClassifierConfig
from gluon_asymmnet.train.config import parse_config, resolve
from gluon_asymmnet.train.detector_config import DetectorConfig
from gluon_asymmnet.train.recipes import RECIPES
from gluon_asymmnet.train.schedules import make_schedule
from gluon_asymmnet.utils.settings import check_settings, flag_of, from_json, to_json

README_COMMAND = (
    "--rec-train ./train.rec --rec-train-idx ./train.idx --rec-val ./val.rec "
    "--rec-val-idx ./val.idx --batch-size 256 --num-gpus 8 -j 48 --model asymmnet_large "
    "--mode hybrid --wd 0.00003 --lr 2.6 "
    "--lr-mode cosine --num-epochs 360 --warmup-epochs 5 --no-wd --last-gamma --label-smoothing "
    "--width-scale 1.0 --dtype float16 --dropout 0.1 --log-interval 100"
)


def parse(line):
    return parse_config(ClassifierConfig, line.split())


def test_the_authors_readme_command():
    config = parse(README_COMMAND)
    assert (config.batch_size, config.num_gpus, config.num_workers) == (256, 8, 48)
    assert (config.width, config.dropout, config.wd) == (1.0, 0.1, 3e-5)
    assert config.no_wd
    assert config.last_gamma
    assert config.label_smoothing


def test_the_readme_recipe_is_that_command():
    paths = {"rec_train", "rec_train_idx", "rec_val", "rec_val_idx", "recipe", "tag_name"}
    recipe, command = parse("--recipe readme"), parse(README_COMMAND)
    assert command.width == ModelSpec.parse(recipe.model).width
    differing = {
        f.name for f in dataclasses.fields(recipe)
        if getattr(recipe, f.name) != getattr(command, f.name)
    }  # fmt: skip
    assert differing <= paths | {"width"}


def test_the_published_recipe_is_the_logs_first_line():
    """What checkpoints/log.txt line 1 says; see facts in docs/reproduction.md."""
    config = parse("--recipe published")
    assert (config.num_gpus * config.batch_size, config.dtype, config.lr) == (2048, "float32", 2.6)
    assert (config.wd, config.momentum, config.dropout) == (3e-5, 0.9, 0.2)
    assert (config.num_epochs, config.warmup_epochs, config.lr_mode) == (360, 5, "cosine")
    assert (config.last_gamma, config.mixup, config.doshuffle) == (False, False, False)
    assert (config.no_wd, config.label_smoothing) == (True, True)
    assert (config.input_size, config.crop_ratio) == (224, 0.875)
    assert (config.log_interval, config.save_frequency) == (50, 10)


def test_flags_override_the_recipe():
    config = parse("--recipe published --num-gpus 0 --lr 0.1")
    assert (config.num_gpus, config.lr, config.num_epochs) == (0, 0.1, 360)


def test_timms_recipe_falls_as_timms_does():
    """0.973 every 2.4 epochs, smoothly; RMSProp with TensorFlow's numbers."""
    config = resolve(ClassifierConfig, {"recipe": "timm", "num_gpus": 1})
    schedule = make_schedule(config, 10, config.lr)
    for epochs in (2.4, 24, 240):
        found = schedule(round(10 * (config.warmup + epochs)))
        assert found == pytest.approx(0.064 * 0.973 ** (epochs / 2.4), rel=2e-3)
    assert (config.optimizer, config.epsilon, config.rho, config.momentum) == (
        "rmsprop", 0.001, 0.9, 0.9,
    )  # fmt: skip
    assert RECIPES["timm"].run.startswith("not run here")


def test_a_recipe_of_ones_own(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text('{"settings": {"model": "asymmnet_small", "lr_decay_epoch": [3, 4]}}')
    assert resolve(ClassifierConfig, {"recipe": str(file)}).lr_decay_epoch == (3, 4)
    file.write_text('{"settings": {"modell": "asymmnet_small"}}')
    with pytest.raises(InputError, match="not a recipe: it has 'modell'"):
        resolve(ClassifierConfig, {"recipe": str(file)})
    file.write_text('{"settings": {"model": "asymmnet_small", "lr": "fast"}}')
    with pytest.raises(InputError, match="lr is 'fast', expected a number"):
        resolve(ClassifierConfig, {"recipe": str(file)})
    with pytest.raises(InputError, match="unknown recipe 'tim': one of demo, fashion, published"):
        resolve(ClassifierConfig, {"recipe": "tim"})


@pytest.mark.parametrize("recipe", sorted(set(RECIPES) - {"timm"}))
def test_recipes_have_none_of_what_the_authors_have_not(recipe):
    config = resolve(ClassifierConfig, {"recipe": recipe, "num_gpus": 1})
    off = {
        "cutmix": 0, "randaugment": 0, "random_erasing": 0, "teacher": "", "accumulate": 1,
        "clip_norm": 0, "layer_decay": 1, "ema": 0, "patience": 0, "freeze_stages": 0,
        "freeze_bn": False, "mixup": False, "mixes": False,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in off} == off


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_hold_known_settings(recipe):
    names = {f.name for f in dataclasses.fields(ClassifierConfig)}
    assert set(RECIPES[recipe].settings) <= names


def test_json_round_trip(tmp_path):
    config = parse(README_COMMAND)
    (tmp_path / "config.json").write_text(to_json(config))
    assert from_json(ClassifierConfig, tmp_path / "config.json") == config
    (tmp_path / "config.json").write_text('{"model": 1, "nonsense": 2}')
    with pytest.raises(InputError, match="not the configuration of a run"):
        from_json(ClassifierConfig, tmp_path / "config.json")


def test_every_refused_flag_says_why():
    assert ClassifierConfig.declined
    for flag, reason in ClassifierConfig.declined.items():
        with pytest.raises(InputError, match=re.escape(f"{flag} is declined: {reason}")):
            parse(f"--model asymmnet_small {flag}")


def test_a_config_of_an_earlier_version_lists_declined_flags(tmp_path):
    config = parse("--model asymmnet_small")
    settings = {**json.loads(to_json(config)), "use_se": False, "batch_norm": None}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert from_json(ClassifierConfig, tmp_path / "config.json") == config


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "--model is required"),
        ("--model a --batch-size 0", "--batch-size must be at least 1, got 0"),
        ("--model a --lr -1", "--lr must be at least 0, got -1.0"),
        ("--model a --crop-ratio 1.5", r"--crop-ratio must be in \(0, 1\], got 1.5"),
        ("--model a --rgb-mean 1,2", "--rgb-mean takes three numbers"),
        ("--model a --rgb-std 1,2,0", "--rgb-std must be above 0"),
        ("--model a --mixup --mixup-alpha 0", "--mixup-alpha must be above 0"),
        (
            "--model a --num-epochs 5 --warmup-epochs 5",
            "--warmup-epochs 5 leaves nothing of the 5 epochs",
        ),
        ("--model a --data-backend dali-gpu", "--data-backend dali is declined"),
        ("--model a --mode symbolic", "--mode symbolic is declined"),
        ("--model a --dtype bfloat16", "fails on the concat"),
        ("--model a --dtype float16", "float16 needs a GPU"),
        ("--model a --resume-epoch 3", "--resume-epoch 3 needs --resume-params"),
        ("--model a --use-pretrained --resume-params x", "not both"),
        ("--model a --ema 1", r"--ema must be in \[0, 1\), got 1.0"),
        ("--model a --patience -1", "--patience must be at least 0, got -1"),
        ("--model a --patience 3 --rec-val=", "--patience needs a validation set"),
        ("--model a --clip-norm -2", "--clip-norm must be at least 0, got -2.0"),
        ("--model a --accumulate 0", "--accumulate must be at least 1, got 0"),
        ("--model a --layer-decay 0", r"--layer-decay must be in \(0, 1\], got 0.0"),
        ("--model a --cutmix -1", "--cutmix must be at least 0, got -1.0"),
        ("--model a --mixup-prob 1.2", r"--mix-prob must be in \[0, 1\], got 1.2"),
        ("--model a --reprob 2", r"--random-erasing must be in \[0, 1\], got 2.0"),
        ("--model a --randaugment-magnitude 31", r"must be in \[0, 30\], got 31"),
        (
            "--model a --randaugment 2 --data-backend mxnet",
            "2 needs --data-backend opencv",
        ),
        (
            "--model a --random-erasing 0.1 --data-backend mxnet",
            "needs --data-backend opencv",
        ),
        (
            "--model a --freeze-stages 7 --use-pretrained",
            r"must be in \[0, 6\], got 7",
        ),
        (
            "--model a --freeze-bn",
            "--freeze-bn needs --use-pretrained or --resume-params or --finetune",
        ),
        ("--model a --reset-output", "--reset-output needs --resume-params"),
        ("--model a --reset-output --resume-params x --resume-epoch 2", "starts a new training"),
        ("--model a --temperature 3", "--temperature 3.0 needs --teacher"),
        ("--model a --hard-weight 0.2", "--hard-weight 0.2 needs --teacher"),
        ("--model a --teacher-params x", "--teacher-params x needs --teacher"),
        ("--model a --shuffle-group 4", "--shuffle-group 4 needs --doshuffle"),
        ("--model a --mixup-alpha 0.3", "--mixup-alpha 0.3 needs --mixup"),
        ("--model a --mix-prob 0.5", "--mix-prob 0.5 needs --mixup or --cutmix"),
        ("--model a --mixup --mix-switch-prob 0.1", "--mix-switch-prob 0.1 needs --cutmix"),
        ("--model a --mixup-off-epoch 4", "--mixup-off-epoch 4 needs --mixup or --cutmix"),
        ("--model a --randaugment-magnitude 5", "--randaugment-magnitude 5 needs --randaugment"),
        ("--model a --ema-power 0.6", "--ema-power 0.6 needs --ema"),
        ("--model a --lr-mode cosine --lr-decay 0.5", "--lr-decay 0.5 needs no --lr-mode cosine"),
        ("--model a --lr-mode poly --lr-decay-epoch 9,12", "-epoch 9,12 needs --lr-mode step"),
        ("--model a --lr-decay-period 3 --lr-decay-epoch 9", "9 needs no --lr-decay-period"),
        ("--model a --warmup-epochs 0 --warmup-lr 0.1", "--warmup-lr 0.1 needs --warmup-epochs"),
        ("--model a --data-dir d --rec-train t", "--rec-train t needs --use-rec or no --data-dir"),
        ("--model a --rec-val= --rec-val-idx i", "--rec-val-idx i needs --rec-val"),
        ("--model a --trust", "--trust needs --resume-states"),
        ("--model a --data-dir d --data-backend mxnet", "d needs --data-backend opencv or --use"),
        ("--model a --lr nan", "--lr must be at least 0, got nan"),
        ("--model a --lr inf", "--lr must be at least 0, got inf"),
        ("--model a --momentum 1.5", r"--momentum must be in \[0, 1\), got 1.5"),
        ("--model a --jitter 5", r"--jitter must be in \[0, 1\], got 5.0"),
        ("--model a --dropout 1", r"--dropout must be in \[0, 1\), got 1.0"),
        ("--model a --width -1", "--width-scale must be above 0, got -1.0"),
        ("--model a --rgb-mean 1,nan,2", r"--rgb-mean must be in \[0, 255\], got nan"),
        ("--model a --lr-decay-epoch 4,-2", "--lr-decay-epoch must be at least 0, got -2"),
        ("--model a --seed 4294967296", r"--seed must be in \[0, 2147483647\], got 4294967296"),
        ("--model a --use-gn", "--use-gn is declined"),
        ("--model a --teacher x --temperature 0", "--temperature must be above 0, got 0.0"),
        ("--model a --teacher x --hard-weight 1", r"--hard-weight must be in \[0, 1\), got 1.0"),
    ],
)
def test_settings_that_cannot_be_meant(line, message):
    with pytest.raises(InputError, match=message):
        parse(line)


@pytest.mark.parametrize("config_class", [ClassifierConfig, DetectorConfig])
def test_every_number_has_an_interval_and_every_need_a_field(config_class):
    """Otherwise nan, or a setting without effect, passes."""
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    for field in fields.values():
        is_tuple = isinstance(field.default, tuple)
        first = next(iter(field.default), "") if is_tuple else field.default
        numeric = field.metadata.get("type", type(first)) in (int, float)
        assert bool(field.metadata["within"]) == numeric, field.name
        for need in field.metadata["needs"]:
            for condition in need.split("|"):
                name, _, value = condition.lstrip("!").partition("=")
                choices = fields[name].metadata.get("choices", ("",))
                assert not value or value in choices, (field.name, condition)
    check_settings(config_class())


def test_choices_count_for_settings_from_python_too():
    with pytest.raises(InputError, match="unknown schedule 'cos': one of step, poly, cosine, exp"):
        resolve(ClassifierConfig, {"model": "a", "lr_mode": "cos"})


GLUONCVS_COMMANDS = (
    # Its scripts' defaults, given explicitly, and the commands of its model zoo's page.
    "--model a --lr-mode cosine --lr-decay 0.1 --lr-decay-epoch 40,60 --lr-decay-period 0 "
    "--mixup-alpha 0.2 --mixup-off-epoch 0 --temperature 20 --hard-weight 0.5 --warmup-lr 0.0 "
    "--resume-epoch 0 --data-backend mxnet --shuffle-group 2 --asymmrate 1 --dropout 0.0",
    "--rec-train a --rec-train-idx b --rec-val c --rec-val-idx d --use-rec --mode hybrid "
    "--model a --lr 0.4 --lr-mode cosine --num-epochs 200 --batch-size 128 --num-gpus 8 -j 60 "
    "--warmup-epochs 5 --dtype float16 --no-wd --last-gamma --label-smoothing --mixup "
    "--mixup-off-epoch 20 --data-dir x --save-dir p --logging-file l --num-training-samples 100",
    "--model a --teacher resnet152_v1d --temperature 20 --hard-weight 0.5 --lr-decay-period 30 "
    "--lr-decay 0.1 --use-rec --num-epochs 120",
)


@pytest.mark.parametrize("line", GLUONCVS_COMMANDS)
def test_gluoncvs_commands_pass(line):
    assert parse(line).model == "a"


def test_every_field_is_read_somewhere():
    """A setting nobody reads is a dead flag, as ten of the authors' are."""
    from tests.conftest import ROOT

    code = "".join(
        p.read_text() for p in (ROOT / "gluon_asymmnet").rglob("*.py") if p.name != "recipes.py"
    )
    unread = [
        f.name for f in dataclasses.fields(ClassifierConfig)
        if not re.search(rf"(config|self)\.{f.name}\b", code)
    ]  # fmt: skip
    assert unread == ["recipe"]  # read by ``resolve``, before there is a config
    assert flag_of(ClassifierConfig(), "rate") == "--asymmrate"
