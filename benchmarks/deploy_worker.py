"""A target in another environment: ``python -m benchmarks.deploy_worker NAME FOLDER THREADS``.

``deploy`` starts it with the Python of that environment, which has no MXNet.  FOLDER holds
``card.json`` and what the target is made from.  The first line of the output is JSON: names of the
files, MB of the run-time.  Then each line of the input stands for ``images.npy``; its answer, the
seconds of a call, for ``logits.npy``.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.installed import installed_size
from gluon_asymmnet.card import CARD_FILE, CLASSIFIER, read_card

WEIGHTS, CALIBRATION, IMAGES, LOGITS = "net.params", "calib.npy", "images.npy", "logits.npy"
IR = "net.xml"
_CALLS = 5  # of which the fastest counts


def main() -> None:
    """Convert, then answer until the input ends."""
    name, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # converters print a lot
    files, package, predict = TARGETS[name](folder, threads)
    print(json.dumps([files, installed_size(package)]), file=answers, flush=True)
    for _ in sys.stdin:
        images = np.load(folder / IMAGES)
        logits, seconds = predict(images), []
        for _ in range(_CALLS if len(images) == 1 else 1):
            start = time.perf_counter()
            predict(images)
            seconds.append(time.perf_counter() - start)
        np.save(folder / LOGITS, logits)
        print(min(seconds), file=answers, flush=True)


def _net(folder: Path):
    """Return the network in PyTorch and an image."""
    import torch

    from gluon_asymmnet.torch import AsymmNet, load_weights

    card = read_card(folder / CARD_FILE, CLASSIFIER)
    net = AsymmNet(card.model_spec.plan(), classes=card.classes).eval()
    load_weights(net, folder / WEIGHTS)
    return net, torch.zeros(1, 3, card.input_size, card.input_size)


def _litert(folder: Path, threads: int):
    import litert_torch
    from ai_edge_litert.interpreter import Interpreter

    net, image = _net(folder)
    file = folder / "net.tflite"
    litert_torch.convert(net, (image,)).export(str(file))
    interpreter = Interpreter(str(file), num_threads=threads)
    interpreter.allocate_tensors()
    run = interpreter.get_signature_runner()

    def predict(images: np.ndarray) -> np.ndarray:
        return np.concatenate([run(args_0=image[None])["output_0"] for image in images])

    return [file.name], "ai-edge-litert", predict


def _executorch(folder: Path, threads: int):
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    net, image = _net(folder)
    exported = torch.export.export(net, (image,))
    lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    file = folder / "net.pte"
    file.write_bytes(lowered.to_executorch().buffer)
    # its pool has a thread per processor, and Python has no setting for it
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(file).load_method("forward")

    def predict(images: np.ndarray) -> np.ndarray:
        found = [method.execute([torch.from_numpy(image[None])])[0] for image in images]
        return np.concatenate([logits.numpy() for logits in found])

    return [file.name], "executorch", predict


def _nncf(folder: Path, threads: int):
    import openvino

    from gluon_asymmnet.export.int8.nncf import quantize_ir
    from gluon_asymmnet.predict.engines import ENGINES

    file = folder / "int8.xml"
    model = quantize_ir(folder / IR, np.load(folder / CALIBRATION))
    openvino.save_model(model, str(file), compress_to_fp16=False)
    run = ENGINES["openvino"](file, threads).run
    return [file.name, "int8.bin"], "openvino", lambda images: run(images)[0]


TARGETS = {"litert": _litert, "executorch": _executorch, "nncf": _nncf}


if __name__ == "__main__":
    main()
