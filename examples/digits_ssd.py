"""``make demo-ssd``: train a detector of digits; compare its results in three engines."""

import argparse
import json
import sys
from pathlib import Path

from gluon_asymmnet.cli import guarded
from gluon_asymmnet.data.boxes.digits import write_digits_voc
from gluon_asymmnet.utils.atomic import write_text
from gluon_asymmnet.utils.threads import set_threads

EPOCHS = 15  # of 592 images: 8 minutes on two idle cores
BACKBONES = ("digits", "random")
_BATCH = 8  # images in evaluation


def demo_ssd(folder, backbone: str = "digits", epochs: int = EPOCHS) -> int:
    """Make the images, train classifier and detector, export, evaluate with every engine.

    Args:
        folder: for all files; existing ones are used.
        backbone: "digits" starts from the demo's classifier, "random" from random weights.
        epochs: of the detector's training.

    Returns: 0 if the engines agree.
    """
    set_threads()  # before MXNet is imported: imports inside functions load it
    folder = Path(folder)
    print("1. synthetic digit-detection images, as JPEG and VOC XML", flush=True)
    root = folder / "digits-voc"
    if not root.exists():
        write_digits_voc(root)
    print(f"   {root}", flush=True)

    base = ""
    if backbone == "digits":
        print("2. the backbone: AsymmNet-Small trained on digits (make demo)", flush=True)
        base = _backbone(folder)
        if not base:
            return 0

    print(
        f"3. ssd_300_asymmnet_small, {epochs} epochs, from {base or 'random weights'}", flush=True
    )
    result = _train(root, base, folder / "runs", backbone, epochs)
    if not result.finished:
        print("stopped; the same command resumes here")
        return 0

    print(
        "4. the last weights as symbol, ONNX and OpenVINO IR (asymmnet export all ...)", flush=True
    )
    from examples.classifier import web_page
    from gluon_asymmnet.export.formats import export_all
    from gluon_asymmnet.saved import open_saved

    trained, out = (
        open_saved(Path(result.run_dir) / "last.params"),
        folder / f"exported-ssd-{backbone}",
    )
    if not out.exists():
        export_all(trained, out)

    print("5. the 150 held-out images with every engine (asymmnet eval voc ...)", flush=True)
    figures, agreed = _evaluate(root, out)
    for engine, one in figures.items():
        print(
            f"   {engine:<12} mAP {one['mAP']:.4f} (VOC07, IoU 0.5, original pixels), "
            f"{one['mAP_resized']:.4f} in resized ones"
        )
    print("   the engines agree" if agreed else "   the engines DIFFER")
    print(
        f"\nrun:      {result.run_dir} (log.txt, curves.png, samples/, last.params)\n"
        f"exported: {out}"
    )
    print(web_page(trained, folder / f"web-ssd-{backbone}"))
    found = {"backbone": backbone, "epochs": epochs, "agree": agreed, "engines": figures}
    write_text(folder / f"demo-ssd-{backbone}.json", json.dumps(found, indent=1) + "\n")
    return 0 if agreed else 1


def _backbone(folder: Path) -> str:
    """Return the run of the demo's classifier; "" if it was stopped."""
    from examples.classifier import train_records
    from gluon_asymmnet.data.digits import write_digits

    digits = write_digits(folder / "digits", exist_ok=True)
    result = train_records("demo", digits.train, digits.val, folder / "runs")
    return result.run_dir if result.finished else ""


def _train(root: Path, base: str, runs: Path, tag: str, epochs: int):
    from gluon_asymmnet.train.config import resolve
    from gluon_asymmnet.train.detector import train
    from gluon_asymmnet.train.detector_config import DetectorConfig

    given = {
        "network": "asymmnet_small", "dataset": "custom", "dataset_root": str(root),
        "train_splits": "2007_trainval", "val_splits": "2007_test", "pretrained_base": base,
        # a 6 on its head is a 9, a mirrored 2 no digit; and pictures smaller than VOC's
        "no_mirror": True, "max_expansion": 1.5,
        "batch_size": 16, "lr": 0.02, "lr_mode": "cosine", "num_epochs": epochs, "num_workers": 2,
        "val_interval": 5, "log_interval": 20, "save_frequency": 0,
        "save_prefix": f"{runs}/", "tag_name": tag,
    }  # fmt: skip
    return train(resolve(DetectorConfig, given))


def _evaluate(root: Path, exported: Path) -> tuple[dict, bool]:
    """Return the figures of every engine, and whether all found the same."""
    from gluon_asymmnet.data.boxes.voc import VOCSource
    from gluon_asymmnet.evaluation.agreement import compare_detections
    from gluon_asymmnet.evaluation.detection import detect, evaluate
    from gluon_asymmnet.predict.detector import DetectorPredictor

    source, figures, first, agreed = VOCSource(root, [(2007, "test")]), {}, None, True
    for engine in ("mxnet", "onnxruntime", "openvino", "opencv"):
        model = DetectorPredictor(exported, engine)
        card = model.card
        found = list(
            detect(model.predict, source, card.input_size, _BATCH, normalization=card.normalization)
        )
        result = evaluate(found, list(card.class_names), card.input_size)
        figures[engine] = {
            "mAP": result.original.mean_ap_11_point,
            "mAP_resized": result.resized.mean_ap_11_point,
        }
        detections = [one for _, one in found]
        first = first or detections
        same = compare_detections(zip(first, detections), score_threshold=card.score_threshold)
        agreed = agreed and same.share == 1
    return figures, agreed


def main(argv=None) -> int:
    """Read the command line and run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default="demo")
    parser.add_argument("--backbone", choices=BACKBONES, default="digits")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"(default {EPOCHS})")
    args = parser.parse_args(argv)
    return guarded(lambda: demo_ssd(args.folder, args.backbone, args.epochs), "demo-ssd")


if __name__ == "__main__":
    sys.exit(main())
