"""Twenty steps by some workers: ``distributed_run.py SETTINGS.json OUT.npz``; or only sums, until
something happens: ``distributed_run.py sums``.

With frozen batch statistics the workers compute what one does: statistics are those of a worker's
own images, and nothing else in a step depends on which images come together.
"""

import json
import sys
from pathlib import Path

import numpy as np

from gluon_asymmnet.cli import guarded
from gluon_asymmnet.distributed.group import join_workers
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.train.classifier_config import ClassifierConfig
from gluon_asymmnet.train.config import resolve


def train(settings_file, out):
    settings = json.loads(Path(settings_file).read_text())
    frozen, steps = settings.pop("frozen"), settings.pop("steps")
    config = resolve(ClassifierConfig, settings)
    with join_workers(config) as workers:
        from gluon_asymmnet._mxnet import mx
        from gluon_asymmnet.distributed.workers import digest
        from gluon_asymmnet.train.checkpoint import net_arrays
        from gluon_asymmnet.train.classifier import ClassifierTask

        def freeze(block):
            if isinstance(block, mx.gluon.nn.BatchNorm):
                block._kwargs["use_global_stats"] = True

        # other weights on each: they must all become worker 0's
        task = ClassifierTask(config, [mx.cpu()], workers)
        if workers.rank:
            for param in task.net.collect_params(".*weight").values():
                param.set_data(param.data() + 1)
        if frozen:
            task.net.apply(freeze)
        task.synchronize_workers()
        sums = []
        for step, batch in zip(range(steps), task.batches(0, 0)):
            task.trainer.set_learning_rate(task.schedule(step + 1))
            rng = np.random.default_rng([config.seed, step])
            sums.append(workers.sum("sums", task.step(batch, 0, rng)).asnumpy())
        arrays = net_arrays(task.net)
        workers.check_same("end", {"weights": digest(arrays)})
        if workers.rank == 0:
            np.savez(out, **arrays, sums=np.stack(sums))


def add_up():
    config = resolve(ClassifierConfig, {"model": "asymmnet_small"})
    with join_workers(config) as workers:
        for number in range(10**6):
            total = workers.sum_numbers("sums", [number, workers.rank])
            assert total == [number * workers.world_size, sum(range(workers.world_size))], total
            if number == 20:
                print("adding up", flush=True)
            if "fail" in sys.argv and workers.rank == 1 and number == 50:
                raise InputError("the 51st number is odd")


if __name__ == "__main__":
    if sys.argv[1] == "sums":
        sys.exit(guarded(add_up, "distributed_run.py"))
    train(*sys.argv[1:])
