"""The exported web page in a headless Chromium: the same results as in Python, and the page."""

import base64
import functools
import http.server
import json
import os
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.card import DetectorCard
from gluon_asymmnet.data.boxes.transforms import validation_image
from gluon_asymmnet.errors import FormatError
from gluon_asymmnet.evaluation.agreement import compare_detections
from gluon_asymmnet.export.web.export import export_web
from gluon_asymmnet.export.web.runtime import cached_archive
from gluon_asymmnet.predict import Predictor
from gluon_asymmnet.predict.detector import DetectorPredictor
from gluon_asymmnet.predict.images import read_image
from gluon_asymmnet.predict.nms import suppress
from gluon_asymmnet.saved import Saved, open_saved
from gluon_asymmnet.zoo import get_model
from tests.browser import Browser
from tests.conftest import USER_CACHE
from tests.odd_pictures import odd_pictures, photograph
from tests.test_nms import candidates
from tests.test_report_browser import complaints, smallest_letters, wider_than_the_page

pytestmark = pytest.mark.browser

PICTURES = odd_pictures()
LOGITS = 1e-4  # largest difference to ONNX Runtime in Python
WIDTHS = {"desktop": 1280, "phone": 390}
DETECTOR = "ssd_300_asymmnet_small_0.35_custom"
# What Chromium itself says where it has no WebGPU.
_NO_GPU = "No available adapters"


@pytest.fixture(scope="module")
def sites(teacher_run, tmp_path_factory):
    """A folder with the pages of a classifier and of a detector, and the pictures."""
    folder = tmp_path_factory.mktemp("sites")
    with pytest.MonkeyPatch.context() as patched:  # fetched once, not in each session
        patched.setenv("XDG_CACHE_HOME", USER_CACHE)
        ort = cached_archive()
    export_web(open_saved(teacher_run), folder / "classifier", ort_from=ort)
    mx.random.seed(5)
    net = get_model(DETECTOR, classes=["cat", "dog", "ox"])
    net.initialize(mx.init.Xavier(magnitude=2))
    net(mx.nd.zeros((1, 3, 300, 300)))
    card = DetectorCard(model=DETECTOR, input_size=300, class_names=["cat", "dog", "ox"])
    export_web(Saved(card, net, Path("net.params")), folder / "detector", ort_from=ort)
    (folder / "pictures").mkdir()
    for name, data in PICTURES.items():
        (folder / "pictures" / name).write_bytes(data)
    return folder


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def origin(sites):
    """The address of a plain server, that of `python -m http.server`."""
    handler = functools.partial(_Quiet, directory=str(sites))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    flags = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with Browser(tmp_path_factory.mktemp("profile"), *flags) as opened:
        yield opened


def opened(browser, origin, kind, width=1280, **how):
    """Open a page and wait until the model is loaded."""
    browser.open(f"{origin}/{kind}/", width, **how)
    wait_for(browser, "document.getElementById('status').textContent.startsWith('Ready')")


def wait_for(browser, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not browser.evaluate(condition):
        assert time.monotonic() < deadline, browser.evaluate("document.body.innerText")
        time.sleep(0.05)


def run(browser, body, **values):
    """Run the body of an async function with the module's names; return what it returns."""
    names = "".join(f"const {name} = {json.dumps(value)};" for name, value in values.items())
    return browser.evaluate(
        f"""(async () => {{ {names}
        const {{ Predictor, suppress }} = await import("./asymmnet.js");
        const {{ readPicture }} = await import("./picture.js");
        const predictor = await (window.predictor ??= Predictor.load({{ engine: "wasm" }}));
        const bytes = async (name) =>
          new Uint8Array(await (await fetch("/pictures/" + name)).arrayBuffer());
        const packed = (array) => {{
          const view = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
          let text = "";
          for (let i = 0; i < view.length; i += 8192)
            text += String.fromCharCode(...view.subarray(i, i + 8192));
          return btoa(text);
        }};
        {body} }})()"""
    )


def array(text, shape=-1):
    return np.frombuffer(base64.b64decode(text), np.float32).reshape(shape)


def preprocessed(browser, name, side):
    text = run(
        browser, "return packed(predictor.preprocess(await readPicture(await bytes(name))));",
        name=name,
    )  # fmt: skip
    return array(text, (3, side, side))


def differences(browser, kind, card, screenshots):
    """Return ``{picture: (differing values, largest difference in levels)}``, and write it."""
    found = {}
    for name, data in PICTURES.items():
        rgb = read_image(data)
        expected = (
            card.preprocessing(rgb) if kind == "classifier"
            else validation_image(rgb, card.input_size, card.normalization)
        )  # fmt: skip
        actual = preprocessed(browser, name, card.input_size)
        levels = np.abs(actual - expected) * np.reshape(card.rgb_std, (3, 1, 1))
        found[name] = (int((actual != expected).sum()), round(float(levels.max()), 3))
    (screenshots / f"web-parity-{kind}.json").write_text(json.dumps(found, indent=1))
    return found


def test_a_classifier_sees_the_same_bits(browser, origin, sites, screenshots):
    opened(browser, origin, "classifier")
    card = Predictor(sites / "classifier", "onnxruntime").card
    found = differences(browser, "classifier", card, screenshots)
    cmyk = found.pop("cmyk.jpg")
    assert len(found) >= 70
    assert {name: value for name, value in found.items() if value[0]} == {}
    assert cmyk[1] <= 2.5  # Chromium and OpenCV convert CMYK by different formulas


def test_a_detector_sees_the_same_bits(browser, origin, sites, screenshots):
    opened(browser, origin, "detector")
    card = DetectorPredictor(sites / "detector", "onnxruntime").card
    found = differences(browser, "detector", card, screenshots)
    assert found.pop("cmyk.jpg")[1] <= 2.5
    sizes = {name: read_image(PICTURES[name]).shape[:2] for name in found}
    enlarged = {name for name, size in sizes.items() if max(size) < 300}
    assert len(enlarged) > 50
    assert {name: found[name] for name in found.keys() - enlarged if found[name][0]} == {}
    for name in enlarged:  # Intel's cubic interpolation, see resize.js
        differing, levels = found[name]
        assert levels < 1.01, name
        assert differing < (30 if min(sizes[name]) > 8 else 20_000), name


def test_logits_and_classes_are_those_of_python(browser, origin, sites):
    opened(browser, origin, "classifier")
    predictor = Predictor(sites / "classifier", "onnxruntime")
    for name in list(PICTURES)[::4]:
        data = PICTURES[name]
        expected = predictor.predict(predictor.card.preprocessing(read_image(data))[None])[0]
        text, classes = run(
            browser,
            """const data = await bytes(name);
            const [logits] = await predictor.predict(predictor.preprocess(await readPicture(data)));
            return [packed(logits), await predictor.classify(new Blob([data]), 3)];""",
            name=name,
        )  # fmt: skip
        if name != "cmyk.jpg":
            assert np.abs(array(text) - expected).max() < LOGITS * min(1, np.abs(expected).max())
        (best,) = predictor.classify(data, top=3)
        assert [one["name"] for one in classes] == [one.name for one in best]
        assert [one["probability"] for one in classes] == pytest.approx(
            [one.probability for one in best], abs=LOGITS
        )


@pytest.mark.parametrize("kept", [{}, {"nms_thresh": 0}, {"nms_topk": -1, "post_nms": -1}])
def test_suppression_is_that_of_python(browser, origin, kept):
    opened(browser, origin, "detector")
    how = {"nms_thresh": 0.45, "nms_topk": 40, "post_nms": 10, **kept}
    for seed in range(4):
        _, first, boxes = candidates(seed, 120, coarse=seed % 2 == 0)
        scores = np.stack([first, *(candidates(seed + k, 120, coarse=True)[1] for k in (9, 19))], 1)
        found = run(
            browser,
            """const floats = (values) => Float32Array.from(values);
            return suppress(floats(scores), floats(boxes), how)
              .map(({ index, score, box }) => [index, score, ...box]);""",
            scores=scores.ravel().tolist(), boxes=boxes.ravel().tolist(),
            how={**how, "least_score": 0.2},
        )  # fmt: skip
        expected = suppress(scores, boxes, score_threshold=0.2, **how)
        assert len(expected.labels) >= 5
        rows = np.column_stack([expected.labels, expected.scores, expected.boxes])
        np.testing.assert_array_equal(np.float32(found), np.float32(rows))


@pytest.mark.parametrize("name", ["jpeg-640x480.jpg", "jpeg-exif-6.jpg", "png-alpha.png"])
def test_detections_are_those_of_python(browser, origin, sites, name):
    opened(browser, origin, "detector")
    predictor = DetectorPredictor(sites / "detector", "onnxruntime")
    expected = predictor.detect(PICTURES[name], score_threshold=0.05)[0]
    rows = run(browser, "return predictor.detect(await bytes(name), 0.05);", name=name)
    assert rows[0]["name"] in ("cat", "dog", "ox")
    found = expected._replace(
        labels=np.array([row["index"] for row in rows]),
        scores=np.float32([row["score"] for row in rows]),
        boxes=np.float32([row["box"] for row in rows]),
    )
    agreement = compare_detections([(expected, found)], side=300)
    assert (agreement.share, len(rows)) == (1, len(expected.labels))
    assert agreement.score_difference < LOGITS and agreement.box_difference < 0.01


DAMAGED = {
    "cut off": PICTURES["jpeg-420.jpg"][:-300],
    "cut off in its header": PICTURES["jpeg-420.jpg"][:100],
    "png cut off": PICTURES["png-grey.png"][:-30],
    "png with a wrong bit": bytes([*PICTURES["png-grey.png"][:60], 1,
                                   *PICTURES["png-grey.png"][61:]]),
    "webp cut off": PICTURES["webp-lossy.webp"][:-40],
    "empty": b"",
    "text": b"no picture at all",
    "gif": b"GIF89a" + bytes(40),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGED)
def test_what_python_refuses_is_refused(browser, origin, kind):
    with pytest.raises(FormatError):
        read_image(DAMAGED[kind])
    opened(browser, origin, "classifier")
    message = run(
        browser,
        """return predictor.classify(Uint8Array.from(data)).then(
          () => "classified", (error) => error.constructor.name + ": " + error.message);""",
        data=list(DAMAGED[kind]),
    )  # fmt: skip
    assert message.startswith("PictureError: "), message


# ----------------------------------------------------------------------------------- the page


def choose(browser, *paths):
    node = browser.call("Runtime.evaluate", expression="document.getElementById('files')")
    browser.call(
        "DOM.setFileInputFiles", files=[str(path) for path in paths],
        objectId=node["result"]["objectId"],
    )  # fmt: skip


def shown(browser, count):
    """Wait for this number of results; return the texts."""
    wait_for(browser, f"document.querySelectorAll('#results .time:not(:empty)').length >= {count}")
    return browser.evaluate("[...document.querySelectorAll('#results > li')].map(e => e.innerText)")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("place", WIDTHS)
@pytest.mark.parametrize("kind", ["classifier", "detector"])
def test_the_page(browser, origin, sites, screenshots, kind, place, dark):
    width = WIDTHS[place]
    opened(browser, origin, kind, width, dark=dark)
    files = [sites / "pictures" / name for name in ("jpeg-640x480.jpg", "jpeg-exif-6.jpg")]
    choose(browser, *files)
    texts = shown(browser, 2)
    assert "jpeg-exif-6.jpg" in texts[0] and "jpeg-640x480.jpg" in texts[1]
    assert all(" ms" in text for text in texts)
    if kind == "classifier":
        assert all(text.count(" %") == 5 for text in texts)
    file = screenshots / f"web-{kind}-{place}-{'dark' if dark else 'light'}.png"
    browser.screenshot(file)

    assert [text for text in complaints(browser) if _NO_GPU not in text] == []
    urls = [event["params"]["request"]["url"] for event in browser.events
            if event.get("method") == "Network.requestWillBeSent"]  # fmt: skip
    assert any(url.endswith("model.onnx") for url in urls)
    assert [url for url in urls if not url.startswith((f"{origin}/", "data:", "blob:"))] == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert wider_than_the_page(browser, width) == []
    assert smallest_letters(browser) >= 11
    assert bool(cv2.imread(str(file))[:50].mean() < 60) is dark
    labels = browser.evaluate("[...document.querySelectorAll('canvas')].map(c => c.ariaLabel)")
    assert len(labels) == 2 and "jpeg-exif-6.jpg" in labels[0]


def test_the_keyboard_reaches_everything(browser, origin):
    opened(browser, origin, "classifier")
    reached = []
    for _ in range(2):
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab",
                         windowsVirtualKeyCode=9)  # fmt: skip
        reached.append(browser.evaluate("document.activeElement.id"))
    assert reached == ["files", "camera"]


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_pictures_are_dropped_and_pasted(browser, origin, way):
    opened(browser, origin, "classifier")
    event = {
        "drop": "new DragEvent('drop', { dataTransfer, cancelable: true, bubbles: true })",
        "paste": "new ClipboardEvent('paste', { clipboardData: dataTransfer, bubbles: true })",
    }[way]
    browser.evaluate(
        f"""(async () => {{
        const data = await (await fetch("/pictures/webp-lossy.webp")).blob();
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([data], "given.webp"));
        document.body.dispatchEvent({event}); }})()"""
    )
    (text,) = shown(browser, 1)
    assert "given.webp" in text


def test_the_camera(browser, origin):
    opened(browser, origin, "classifier")
    browser.evaluate("document.getElementById('camera').click()")
    (text,) = shown(browser, 1)
    assert text.startswith("camera") and text.count(" %") == 5
    assert browser.evaluate("document.getElementById('camera').textContent") == "Stop the camera"
    browser.evaluate("document.getElementById('camera').click()")
    assert browser.evaluate("document.getElementById('camera').textContent") == "Camera"


def test_a_wrong_file_is_one_line(browser, origin, tmp_path):
    opened(browser, origin, "classifier")
    (tmp_path / "notes.txt").write_text("no picture")
    choose(browser, tmp_path / "notes.txt")
    wait_for(browser, "document.querySelector('.failed') !== null")
    status = browser.evaluate("document.getElementById('status').textContent")
    assert status == "notes.txt: expected a JPEG, PNG, WebP or BMP picture; this file is none"


def test_a_large_photograph(browser, origin, sites):
    """More pixels than are read from a canvas at once."""
    big = cv2.imencode(".jpg", photograph(2403, 1601)[:, :, ::-1])[1].tobytes()
    (sites / "pictures" / "big.jpg").write_bytes(big)
    opened(browser, origin, "classifier")
    card = Predictor(sites / "classifier", "onnxruntime").card
    expected = card.preprocessing(read_image(big))
    np.testing.assert_array_equal(preprocessed(browser, "big.jpg", 48), expected)


def status_of(browser):
    wait_for(browser, "document.getElementById('status').className === 'error'")
    return browser.evaluate("document.getElementById('status').textContent")


def test_opened_as_a_file(browser, sites):
    browser.open(sites / "classifier" / "index.html", 390)
    assert "python -m http.server" in status_of(browser)


def test_without_webassembly(browser, origin):
    script = browser.call("Page.addScriptToEvaluateOnNewDocument", source="delete WebAssembly")
    try:
        browser.open(f"{origin}/classifier/", 390)
        assert "no WebAssembly" in status_of(browser)
    finally:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", **script)


def test_without_the_model(browser, origin, sites):
    """Also after a visit: a browser keeps a file of a year for a month if it is not told to ask.

    Otherwise a folder that is exported again would be run with the model of before.
    """
    year = time.time() - 365 * 86_400
    for name in ("model.onnx", "card.json"):
        os.utime(sites / "classifier" / name, (year, year))
    opened(browser, origin, "classifier")
    (sites / "classifier" / "model.onnx").rename(sites / "elsewhere")
    try:
        browser.open(f"{origin}/classifier/", 390)
        assert "model.onnx cannot be loaded: 404" in status_of(browser)
    finally:
        (sites / "elsewhere").rename(sites / "classifier" / "model.onnx")
