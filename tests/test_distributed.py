"""Several workers: rank and world size, shards of the data, heartbeats."""

import re
import socket
import time

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.data.bad_records import LeftOut, SkippedRecords
from gluon_asymmnet.data.loader import Shard, epoch_order
from gluon_asymmnet.data.records.writer import RecordWriter
from gluon_asymmnet.data.sources import open_source
from gluon_asymmnet.data.transforms import Preprocessing
from gluon_asymmnet.distributed.engines import _Packed
from gluon_asymmnet.distributed.environment import WorkerEnvironment, read_environment
from gluon_asymmnet.distributed.heartbeat import Coordinator, Member
from gluon_asymmnet.distributed.launch import read_hosts
from gluon_asymmnet.distributed.workers import Workers
from gluon_asymmnet.errors import InputError, RunError
from gluon_asymmnet.evaluation.classification import evaluate_distributed
from gluon_asymmnet.train.checkpoint_files import write_manifest
from gluon_asymmnet.train.classifier import ClassifierTask, train
from tests.conftest import free_port
from tests.digits_runs import config

# --- Rank and world size ---------------------------------------------------------------------


def test_alone_unless_several_are_asked_for():
    assert read_environment("auto", False, {"SLURM_PROCID": "1", "SLURM_NTASKS": "4"}) is None
    assert read_environment("local", False, {"ASYMMNET_ENGINE": "kvstore"}) is None


@pytest.mark.parametrize(
    "variables",
    [
        {"DMLC_WORKER_ID": "2", "DMLC_NUM_WORKER": "4"},
        {"SLURM_PROCID": "2", "SLURM_NTASKS": "4"},
        {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4"},
        {"PMI_RANK": "2", "PMI_SIZE": "4"},
        {"JOB_COMPLETION_INDEX": "2", "DMLC_NUM_WORKER": "4"},
    ],
)
def test_rank_and_world_size_come_from_the_launcher(variables):
    environment = read_environment("dist_sync", False, {**variables, "DMLC_PS_ROOT_URI": "node1"})
    assert environment == WorkerEnvironment(2, 4, "node1", 9091, 4, "kvstore", 300)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "--kvstore dist_sync needs the rank of this worker"),
        ({"SLURM_PROCID": "4", "SLURM_NTASKS": "4"}, "SLURM_PROCID 4 is not below SLURM_NTASKS 4"),
        ({"SLURM_PROCID": "x", "SLURM_NTASKS": "4"}, "SLURM_PROCID must be a number, at least 0"),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "4"}, "set DMLC_PS_ROOT_URI"),
        (
            {"PMI_RANK": "0", "PMI_SIZE": "2", "DMLC_PS_ROOT_URI": "a", "DMLC_NUM_SERVER": "3"},
            "DMLC_NUM_SERVER 3 is above the number of workers, 2",
        ),
    ],
)
def test_variables_that_do_not_fit_are_refused(variables, message):
    with pytest.raises(InputError, match=message):
        read_environment("dist_sync", False, variables)


def test_hosts_are_read_as_mpi_writes_them(tmp_path):
    file = tmp_path / "hosts"
    file.write_text("# two machines\nnode1 slots=2\n\nnode2\n")
    assert read_hosts(file, 3) == ["node1", "node1", "node2"]
    with pytest.raises(InputError, match=r"-n 4: .* offers 3"):
        read_hosts(file, 4)
    for line in ("node1 slots=x", "node1 2", "-oProxyCommand=x", "a b c"):
        file.write_text(line)
        with pytest.raises(InputError, match="hosts, line 1"):
            read_hosts(file, 1)


# --- Parts of the data -----------------------------------------------------------------------


@pytest.mark.parametrize(("count", "batch"), [(1, 6), (2, 3), (2, 8), (3, 2), (5, 1), (7, 4)])
def test_the_workers_batches_are_the_one_workers_batch(count, batch):
    images, steps = 211, 211 // (batch * count)
    whole = epoch_order(images, steps, batch * count, 3, 1)
    parts = [epoch_order(images, steps, batch, 3, 1, Shard(i, count)) for i in range(count)]
    for step in range(steps):
        assert sorted(np.concatenate([p[step] for p in parts])) == sorted(whole[step])
    assert len(np.unique(parts)) == steps * batch * count


@pytest.mark.parametrize(("count", "batch"), [(2, 8), (3, 2), (7, 4)])
def test_mixups_pairs_are_the_one_workers_pairs(count, batch):
    def pairs(order):
        return {frozenset(pair) for pair in zip(order[0], order[0, ::-1])}

    whole = pairs(epoch_order(100, 1, batch * count, 0, 0))
    parts = [pairs(epoch_order(100, 1, batch, 0, 0, Shard(i, count))) for i in range(count)]
    assert set.union(*parts) == whole


class OneOf(Workers):
    """A worker that adds its numbers to those of the workers before it."""

    def __init__(self, rank, world_size, total):
        self.rank, self.world_size, self.total = rank, world_size, total

    def sum_numbers(self, name, numbers):
        self.total[:] = [a + b for a, b in zip(self.total, numbers)]
        # the first workers know only a part: not the number of images
        return self.total if self.rank + 1 == self.world_size else [0, 449, 0, 0, 0]


@pytest.mark.parametrize(("count", "bad"), [(2, [100]), (3, [100]), (500, [])])  # 449 images
def test_workers_score_each_image_once(digits, tmp_path, count, bad):
    """The figures are those of one worker, with a damaged image left out and without one."""
    rec, wide = tmp_path / "val.rec", np.random.default_rng(0).standard_normal((3 * 64, 10))
    with RecordWriter(rec) as writer:
        for i, record in enumerate(open_source(rec=str(digits.val)).read(i) for i in range(449)):
            writer.write(i, record.label, b"no image" if i in bad else record.image)
    settings = dict(classes=10, preprocessing=Preprocessing(input_size=8, crop_ratio=1.0))

    def predict(images):
        return images.reshape(len(images), -1) @ wide

    def scored(workers):
        left_out = LeftOut(SkippedRecords(1))
        found = evaluate_distributed(
            workers, predict, open_source(rec=rec), left_out=left_out, **settings
        )
        return found, left_out.positions

    (expected, number), positions = scored(Workers())
    assert (number, positions) == (len(bad), bad)
    total, everywhere = [0] * 5, []
    for rank in range(count):
        (found, number), positions = scored(OneOf(rank, count, total))
        everywhere += positions
    assert (number, everywhere) == (len(bad), bad)
    assert found == pytest.approx(expected)


class Two(Workers):
    """The first of two workers, as far as a task asks before it communicates."""

    world_size = 2


def test_batch_steps_and_rate_are_those_of_all_workers(digits):
    task = ClassifierTask(config(digits, lr=2.6, lr_base_batch=2048), [mx.cpu()], Two())
    assert (task.images_per_step, task.steps_per_epoch) == (128, 1348 // 128)
    assert task.peak_lr == pytest.approx(2.6 * 128 / 2048)
    assert next(task.batches(0, 0)).data.shape[0] == 64
    assert "steps of 128 images per epoch on 2 workers of 1 cpu(s)" in task.describe()


def test_the_authors_reader_is_for_one_process(digits):
    with pytest.raises(InputError, match="--data-backend mxnet is for one process"):
        ClassifierTask(config(digits, data_backend="mxnet"), [mx.cpu()], Two())


@pytest.mark.thorough
def test_a_run_goes_on_with_as_many_workers_as_before(digits, tmp_path):
    settings = {"save_dir": str(tmp_path), "num_epochs": 1, "warmup_epochs": 0}
    small = config(digits, num_training_samples=64, **settings)
    train(small)
    state = next(tmp_path.glob("*/*/checkpoints/*/state.json"))
    state.write_text(state.read_text().replace('"images_per_step": 64', '"images_per_step": 128'))
    (state.parent / "manifest.json").unlink()
    write_manifest(state.parent, 1)
    with pytest.raises(InputError, match="counts steps of 128 images, and this run's are of 64"):
        train(small)


# --- Heartbeats ------------------------------------------------------------------------------


def environments(size, timeout=2.0):
    port = free_port()
    return [
        WorkerEnvironment(r, size, "127.0.0.1", port, 1, "kvstore", timeout) for r in range(size)
    ]


def reasons_of(ends, count, seconds=10):
    until = time.monotonic() + seconds
    while len(ends) < count and time.monotonic() < until:
        time.sleep(0.02)
    return [ends[rank] for rank in sorted(ends)]


def test_sums_of_half_precision_reach_every_device():
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Dense(2, in_units=3), mx.gluon.nn.BatchNorm(in_channels=2))
    net.cast("float16")
    net.initialize(ctx=[mx.cpu(0), mx.cpu(1)])
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd")
    weight, running = net[0].weight, net[1].running_var
    weight.list_grad()[0][:] = 3
    packed = _Packed(trainer)
    packed.put_back(2 * packed.flat(), workers=4)
    for grad, variance in zip(weight.list_grad(), running.list_data()):
        assert (grad.asnumpy() == 6).all() and (variance.asnumpy() == 0.5).all()


def test_a_missing_worker_is_named_to_the_others():
    two = environments(3, timeout=1.0)[:2]
    ends = {}
    coordinator = Coordinator(two[0], {})
    for environment in two:
        Member(environment, lambda reason, rank=environment.rank: ends.update({rank: reason}))
    assert len(reasons_of(ends, 2)) == 2
    for reason in ends.values():
        assert re.match(r"worker 2 of 3 did not come within 1 s: .* port \d+", reason)
    coordinator.wait(5)


def test_strangers_are_dropped_and_all_workers_close():
    """A port scan, a browser, a flood, a hello that is none: dropped; the workers meet and end."""
    two = environments(2, timeout=5.0)
    ends = {}
    coordinator = Coordinator(two[0], {"port": 7})
    strangers = (
        b"", b"GET / HTTP/1.1\r\n\r\n", b"[" * 100_000, b'{"hello": 3}\n{"fail": 1}\n',
        b'{"hello": {"rank": "x"}}\n', b'{"bye": 0}\n', b"\xff\xfe\n{}\n",
    )  # fmt: skip
    for stranger in strangers:
        with socket.create_connection(("127.0.0.1", two[0].port)) as connection:
            connection.sendall(stranger)
    members = [Member(p, lambda reason, rank=p.rank: ends.update({rank: reason})) for p in two]
    for member in members:
        rendezvous = member.wait_for_all()
        assert rendezvous["port"] == 7
        assert rendezvous["hosts"] == [socket.gethostname()] * 2
        assert member.address == "127.0.0.1"
    for member in members:
        member.close()
    coordinator.wait(5)
    assert ends == {}
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", two[0].port))


def test_two_of_one_number_end_the_run():
    first, second = environments(2, timeout=5.0)
    ends = {}
    Coordinator(first, {})
    Member(first, lambda reason: ends.update({0: reason}))
    Member(second, lambda reason: ends.update({1: reason}))
    Member(second, lambda reason: ends.update({2: reason}))
    reasons = reasons_of(ends, 3)
    assert len(reasons) == 3
    assert all("came as worker 1 of 2, as " in reason for reason in reasons)


def test_a_port_in_use_and_no_answer_are_said():
    environment = environments(2, timeout=1.0)[1]
    with pytest.raises(RunError, match="worker 1 of 2: no answer from worker 0"):
        Member(environment)
    with (
        socket.create_server(("", environment.port)),
        pytest.raises(RunError, match="cannot listen on"),
    ):
        Coordinator(environment, {})
