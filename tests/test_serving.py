"""One predictor, many threads; and all that may be given as an image."""

import io
import threading

import numpy as np
import pytest
from PIL import Image, ImageFile

from gluon_asymmnet.data.images import encode
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.export.formats import export_all
from gluon_asymmnet.export.parity import sample_images
from gluon_asymmnet.predict import Predictor
from gluon_asymmnet.predict.detector import DetectorPredictor
from gluon_asymmnet.predict.images import read_image
from gluon_asymmnet.saved import open_saved
from tests.conftest import ROOT, run_python
from tests.floats import NET, assert_close
from tests.random_nets import random_detector, random_model
from tests.test_image_files import picture

ENGINES = ("mxnet", "onnxruntime", "openvino", "opencv")
THREADS = 8


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving")
    return export_all(random_model(folder), folder / "all")


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector")
    name = "ssd_300_asymmnet_small_0.35_custom"
    run = random_detector(folder / "run", name, sample_images(2, 300))
    return export_all(open_saved(run), folder / "all", formats=["onnx", "openvino"]), run


# ------------------------------------------------------------------------------ threads


def call_from_threads(predict, images, calls: int) -> int:
    """Let threads predict the images in opposite orders, and count the wrong answers."""
    expected = [predict(image[None]) for image in images]
    gaps = [np.abs(a - b).max() for i, a in enumerate(expected) for b in expected[:i]]
    limit = 1e-3 * min(gaps)  # an answer of another image is a thousand times farther away
    assert limit > 0
    wrong, ready = [], threading.Barrier(THREADS)

    def work(number):
        ready.wait()
        for call in range(calls):
            i = (call if number % 2 else -call) % len(images)
            try:
                found = predict(images[i : i + 1])
                if found.shape != expected[i].shape or np.abs(found - expected[i]).max() > limit:
                    wrong.append((number, call))
            except Exception as error:  # a thread's exception would be lost
                wrong.append((number, call, error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


@pytest.mark.parametrize(
    ("engine", "calls"),
    [(engine, 100) for engine in ENGINES]
    # MXNet's calls wait for each other: 2,000 of each thread take minutes
    + [
        pytest.param(e, 2000, marks=pytest.mark.slow if e == "mxnet" else pytest.mark.thorough)
        for e in ENGINES
    ],
)
def test_every_answer_belongs_to_its_image(exported, engine, calls):
    predictor = Predictor(exported, engine, threads=1 if engine != "mxnet" else 0)
    assert call_from_threads(predictor.predict, sample_images(7, 32, seed=4), calls) == []


@pytest.mark.parametrize(
    "engine", ["opencv", *(pytest.param(e, marks=pytest.mark.thorough) for e in ENGINES[:-1])]
)
def test_every_detection_belongs_to_its_image(detector, engine):
    folder, run = detector
    predictor = DetectorPredictor(run if engine == "mxnet" else folder, engine)
    boxes = lambda images: predictor.predict(images)[2]  # noqa: E731
    assert call_from_threads(boxes, sample_images(3, 300, seed=4), 8) == []


@pytest.mark.thorough
def test_the_first_calls_of_a_process_may_overlap(exported):
    """One process of six or so hung for ever with OpenVINO, whose first arrays were made then."""
    code = (
        "import sys, threading\n"
        "import numpy as np\n"
        "from gluon_asymmnet import Predictor\n"
        "sys.setswitchinterval(1e-6)  # seconds: makes it likely\n"
        "predictor = Predictor(*sys.argv[1:])\n"
        "ready = threading.Barrier(8)\n"
        "def work():\n"
        "    ready.wait()\n"
        "    predictor.predict(np.zeros((1, 3, 32, 32), np.float32))\n"
        "threads = [threading.Thread(target=work) for _ in range(8)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
    )
    for _ in range(6):
        done = run_python("-c", code, exported, "openvino", timeout=100)
        assert done.returncode == 0, done.stderr


@pytest.mark.thorough
def test_predictors_side_by_side(exported):
    """Each thread with its own predictor and batch size, MXNet's among them."""
    images, found = sample_images(4, 32, seed=4), {}
    predictors = {e: Predictor(exported, e) for e in ENGINES}
    expected = predictors["mxnet"].predict(images)

    def work(engine, count):
        for _ in range(20):
            found[engine, count] = predictors[engine].predict(images[:count])

    threads = [threading.Thread(target=work, args=(e, n)) for e in ENGINES for n in (1, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (_, count), logits in found.items():
        assert_close(logits, expected[:count], terms=NET)
    assert len(found) == 2 * len(ENGINES)


def test_the_lines_of_the_page_run(exported, tmp_path):
    text = (ROOT / "docs/serving.md").read_text()
    lines = text.split("```python\n")[1].split("```")[0]
    (tmp_path / "exported").symlink_to(exported)
    done = run_python("-c", lines, cwd=tmp_path)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 8), done.stderr


# ------------------------------------------------------------------------------ OpenCV


def test_opencv_needs_nothing_installed(exported, tmp_path):
    (tmp_path / "a.png").write_bytes(encode(picture(), ".png"))
    code = (
        "import sys\n"
        "for name in ('mxnet', 'onnxruntime', 'openvino', 'onnx', 'torch', 'gluoncv'):\n"
        "    sys.modules[name] = None  # as if it were not installed\n"
        "from gluon_asymmnet import Predictor\n"
        "predictor = Predictor(sys.argv[1])\n"
        "print(predictor.engine, predictor.classify(sys.argv[2])[0][0].index)"
    )
    done = run_python("-c", code, exported, tmp_path / "a.png")
    assert done.returncode == 0, done.stderr
    best = Predictor(exported, "mxnet").classify(tmp_path / "a.png")[0][0].index
    assert (done.stdout, done.stderr) == (f"opencv {best}\n", "")


def test_opencv_runs_only_what_was_compared_with_it(exported, tmp_path):
    (path,) = exported.glob("*.onnx")
    alone = tmp_path / "net.onnx"
    alone.write_bytes(path.read_bytes())
    assert "opencv" in Predictor(alone, "opencv").card.parity  # the card inside
    (tmp_path / "card.json").write_text((exported / "card.json").read_text().replace("opencv", "o"))
    with pytest.raises(InputError, match="was not compared with opencv at its export: export it"):
        Predictor(alone, "opencv")


# ------------------------------------------------------------------------------ images


def both(exported, detector):
    return Predictor(exported, "opencv"), DetectorPredictor(detector[0], "onnxruntime")


def test_every_kind_of_image(exported, detector, tmp_path):
    rgb = picture()
    png = encode(rgb, ".png")
    (tmp_path / "a.png").write_bytes(png)
    kinds = [
        tmp_path / "a.png", str(tmp_path / "a.png"), png, bytearray(png), memoryview(png),
        io.BytesIO(png), Image.open(tmp_path / "a.png"), Image.fromarray(rgb), rgb,
        np.dstack([rgb, rgb[:, :, 0]]),
    ]  # fmt: skip
    for kind in kinds[5:6] + kinds[:5] + kinds[6:]:
        found = read_image(io.BytesIO(png) if isinstance(kind, io.BytesIO) else kind)
        np.testing.assert_array_equal(found, rgb)
    with (tmp_path / "a.png").open("rb") as file:
        np.testing.assert_array_equal(read_image(file), rgb)
    classifier, finder = both(exported, detector)
    (expected,) = classifier.classify([rgb])
    boxes = finder.detect([rgb], 0)[0].boxes
    for kind in kinds:  # one image in place of a list
        assert classifier.classify(kind) == [expected]
    for many in ((rgb for _ in range(3)), (rgb,) * 3, np.stack([rgb] * 3), iter([rgb] * 3)):
        assert classifier.classify(many, batch_size=2) == [expected] * 3
    for many in (rgb, (rgb for _ in range(1)), png):
        np.testing.assert_array_equal(finder.detect(many, 0)[0].boxes, boxes)
    count = sum(1 for _ in finder.detect((rgb for _ in range(18)), batch_size=1))
    assert (count, classifier.classify([]), finder.detect(iter([]))) == (18, [], [])


def test_a_pillow_image_is_turned():
    """As Pillow's own exif_transpose says: 6 is shown turned right by 90 degrees."""
    image = Image.fromarray(picture())
    image.getexif()[0x0112] = 6
    np.testing.assert_array_equal(read_image(image), np.rot90(picture(), -1))
    grey = Image.fromarray(picture()[:, :, 0])
    np.testing.assert_array_equal(read_image(grey), np.dstack([picture()[:, :, 0]] * 3))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (None, "images must be a path, the bytes .*, or several, got None"),
        (7, "or several, got int"),
        ([None], "an image must be a path, the bytes .*, got None"),
        ([picture().tolist()], "an image must be a path, .*, got list"),
        (np.zeros((3, 32, 32), np.uint8), r"an image must be \(H, W\), .*, got \(3, 32, 32\)"),
        (np.zeros((2, 2, 9, 9, 3), np.uint8), r"an image must be .*, got \(2, 2, 9, 9, 3\)"),
        (picture() / 255, r"an image must be .* uint8, got .* float64"),
        ([picture() * np.float32("nan")], "an image must be .* uint8, got .* float32"),
        (io.StringIO("text"), 'is read as text; expected a file opened with "rb"'),
        (Image.new("I;16", (9, 9)), "8 bits per channel, got the mode I;16; scale it and"),
        (Image.new("F", (9, 9)), "8 bits per channel, got the mode F"),
    ],
)
def test_what_is_not_an_image(exported, detector, images, message):
    classifier, finder = both(exported, detector)
    for call in (classifier.classify, finder.detect):
        with pytest.raises(InputError, match=message):
            call(images)


def test_damaged_images_in_memory(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)  # GluonCV sets it
    predictor, png = Predictor(exported, "opencv"), encode(picture(), ".png")
    (tmp_path / "cut.png").write_bytes(png[: len(png) // 2])
    with pytest.raises(FormatError, match="truncated PNG"):
        predictor.classify(png[: len(png) // 2])
    with (tmp_path / "cut.png").open("rb") as file, pytest.raises(FormatError, match=r"cut\.png: "):
        predictor.classify(file)
    jpeg = encode(np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8))
    with pytest.raises(FormatError, match=r"the PIL\.Image cannot be read: "):
        predictor.classify(Image.open(io.BytesIO(jpeg[: len(jpeg) // 2])))


BATCH = sample_images(2, 32)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_not_a_batch(exported, engine):
    predictor = Predictor(exported, engine)
    for images, message in (
        (None, "float32, preprocessed, got NoneType"),
        ("a.jpg", "float32, preprocessed, got str"),
        ([[1.0], [2.0, 3.0]], "float32, preprocessed, got list"),
        (BATCH.astype(np.uint8), "float32, preprocessed, got uint8"),
        (BATCH[0], r"must be \(n, 3, 32, 32\), got \(3, 32, 32\)"),
        (np.where(np.arange(2)[:, None, None, None], np.nan, BATCH), "finite, image 1 holds nan"),
        (np.where(BATCH.max() == BATCH, np.inf, BATCH), r"finite, image \d holds nan or inf"),
        (BATCH.astype(np.float64) * 1e300, "finite, image 0 holds nan or inf"),
    ):
        with pytest.raises(InputError, match=message):
            predictor.predict(images)
    assert_close(predictor.predict(BATCH.astype(np.float64)), predictor.predict(BATCH), terms=NET)


def test_settings_that_are_not_numbers(exported, detector):
    classifier, finder = both(exported, detector)
    for call, settings, message in (
        (classifier.classify, dict(top=1.5), "top must be a whole number, got 1.5"),
        (classifier.classify, dict(top=None), "top must be a whole number, got None"),
        (finder.detect, dict(batch_size="2"), "batch_size must be a whole number, got '2'"),
        (finder.detect, dict(score_threshold=None), "from 0 to 1, got None"),
        (finder.detect, dict(score_threshold=float("nan")), "from 0 to 1, got nan"),
    ):
        with pytest.raises(InputError, match=message):
            call([picture()], **settings)
    for path in (None, 7):
        with pytest.raises(InputError, match=f"the model must be a path, got {path}"):
            Predictor(path)
