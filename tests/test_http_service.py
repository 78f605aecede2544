"""The example of a service, by real requests over localhost."""

import http.client
import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gluon_asymmnet.data.images import encode
from gluon_asymmnet.export.formats import export_all
from gluon_asymmnet.predict import Predictor
from tests.conftest import ROOT, free_port
from tests.random_nets import random_model

pytestmark = pytest.mark.thorough

CLIENTS, WAITING, MAX_BYTES = 8, 8, 200_000


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    return export_all(random_model(folder), folder / "all", formats=["onnx"])


@pytest.fixture(scope="module")
def port(exported):
    number = free_port()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "examples/serving.py"), str(exported), "--port", str(number),
         "--waiting", str(WAITING), "--max-bytes", str(MAX_BYTES)],
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    for _ in range(300):
        try:
            assert ask(number, "GET", "/health")[0] == 200
            break
        except OSError:
            assert process.poll() is None
            time.sleep(0.1)
    yield number
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) in (0, -signal.SIGTERM)


def ask(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def pictures(count):
    rng = np.random.default_rng(1)
    return [encode(rng.integers(0, 256, (40, 50 + k, 3), np.uint8), ".png") for k in range(count)]


def test_eight_clients_at_once_get_their_own_answers_in_common_batches(exported, port):
    predictor, files = Predictor(exported), pictures(CLIENTS)
    expected = [scores[0] for scores in predictor.classify(files)]

    def client(k):
        return [ask(port, "POST", "/classify", files[k]) for _ in range(10)]

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(client, range(CLIENTS)))
    for scores, own in zip(expected, answers):
        for status, found in own:
            assert status == 200
            assert found[0]["index"] == scores.index
            assert found[0]["probability"] == pytest.approx(scores.probability, abs=1e-4)
    health = ask(port, "GET", "/health")[1]
    assert max(health["last_batches"]) > 1
    assert health["waiting"] == 0


def test_what_is_not_an_image_is_refused_and_the_others_of_the_batch_are_answered(port):
    files = [*pictures(3), b"no image", b"", pictures(1)[0][:60]]
    with ThreadPoolExecutor(len(files)) as pool:
        answers = list(pool.map(lambda file: ask(port, "POST", "/classify", file), files))
    assert [status for status, _ in answers] == [200] * 3 + [400] * 3
    assert all(isinstance(found["detail"], str) for _, found in answers[3:])


def test_memory_is_bounded(port):
    status, found = ask(port, "POST", "/classify", bytes(MAX_BYTES + 1))
    assert (status, found["detail"]) == (413, f"more than {MAX_BYTES} bytes")
    slow = []  # requests that hold their place: the body does not come to its end
    for _ in range(WAITING):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.putrequest("POST", "/classify")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b"x")
        slow.append(connection)
    deadline = time.time() + 20
    while ask(port, "GET", "/health")[1]["waiting"] < WAITING and time.time() < deadline:
        time.sleep(0.05)
    assert ask(port, "POST", "/classify", pictures(1)[0])[0] == 503
    for connection in slow:
        connection.close()
    while ask(port, "GET", "/health")[1]["waiting"] and time.time() < deadline:
        time.sleep(0.05)
    assert ask(port, "POST", "/classify", pictures(1)[0])[0] == 200
