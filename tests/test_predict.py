import json
import shutil
import sys
import threading

import numpy as np
import onnx
import pytest

import gluon_asymmnet
from gluon_asymmnet.card import read_card
from gluon_asymmnet.cli import main
from gluon_asymmnet.data.images import encode
from gluon_asymmnet.data.sources import open_source
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.evaluation.classification import evaluate
from gluon_asymmnet.export.formats import export_all
from gluon_asymmnet.export.parity import compare, sample_images
from gluon_asymmnet.predict import Predictor, choice
from gluon_asymmnet.predict.images import read_image
from gluon_asymmnet.predict.inputs import find_inputs, read_frames
from gluon_asymmnet.predict.video import Video
from tests.conftest import ROOT, run_python
from tests.floats import NET, assert_close
from tests.random_nets import random_model
from tests.test_image_files import picture
from tests.videos import serve, shade, write_video

ENGINES = ("mxnet", "onnxruntime", "openvino", "opencv")
NAMES = [str(number) for number in range(10)]  # of the demo set


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network for the digits in every form, and the network itself."""
    folder = tmp_path_factory.mktemp("exported")
    made = random_model(folder, classes=10, class_names=NAMES, crop_ratio=1.0)
    made.net.save_parameters(str(made.weights))
    made.card.save(folder / "card.json")
    return export_all(made, folder / "all"), made


@pytest.fixture
def copied(exported, tmp_path):
    """A copy of the exported folder, to spoil."""
    return shutil.copytree(exported[0], tmp_path / "copied")


def only(folder, pattern):
    (path,) = folder.glob(pattern)
    return path


# ------------------------------------------------------------------------------ the engines


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("threads", [0, 1])
def test_logits_are_the_networks(exported, engine, threads):
    folder, made = exported
    predictor = Predictor(folder, engine, threads=threads)
    assert predictor.engine == engine
    for count in (1, 5, 2):
        images = sample_images(count, 32, seed=count)
        found = predictor.predict(images)
        assert found.dtype == np.float32
        assert_close(found, made.predict(images), terms=NET)
    assert predictor.predict(images[:0]).shape == (0, 10)


def test_one_result_does_not_change_with_the_next(exported):
    for engine in ENGINES:
        predictor = Predictor(exported[0], engine)
        first = predictor.predict(sample_images(2, 32, seed=1))
        kept = first.copy()
        predictor.predict(sample_images(2, 32, seed=2))
        np.testing.assert_array_equal(first, kept)


def test_bfloat16_is_openvinos(exported):
    folder, made = exported
    images = sample_images(4, 32)
    found = compare(made.predict(images), Predictor(folder, precision="bf16").predict(images))
    assert found.relative < 0.1  # 8 bits of mantissa through 35 layers; f32 where there is no bf16
    for engine in ("onnxruntime", "mxnet"):
        with pytest.raises(InputError, match=f"bf16 is for openvino; {engine} computes in f32"):
            Predictor(folder, engine, precision="bf16")


def test_equal_accuracy_from_every_engine(exported, digits):
    folder, made = exported
    source = open_source(rec=digits.val)
    settings = dict(classes=10, preprocessing=made.card.preprocessing, batch_size=100)
    expected = evaluate(made.predict, source, **settings)
    assert len(set(expected.ranked[:, 0])) > 3  # it does tell images apart
    for engine in ENGINES:
        found = evaluate(Predictor(folder, engine).predict, source, **settings)
        np.testing.assert_array_equal(found.ranked[:, 0], expected.ranked[:, 0])
        assert (found.images, found.top1, found.top5) == (449, expected.top1, expected.top5)
        assert found.loss == pytest.approx(expected.loss, rel=1e-5)


@pytest.mark.thorough
def test_what_auto_takes(exported, copied, monkeypatch):
    taken = lambda path: (p := Predictor(path)).engine + " " + p.weights.suffix  # noqa: E731
    assert taken(copied) in ("openvino .xml", "onnxruntime .onnx")  # the faster, see test_fastest
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert taken(copied) == "onnxruntime .onnx"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert taken(copied) == "mxnet .json"
    monkeypatch.undo()
    only(copied, "*.xml").unlink()
    assert taken(copied) in ("openvino .onnx", "onnxruntime .onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert taken(copied) == "openvino .onnx"
    assert taken(only(copied, "*.onnx")) == "openvino .onnx"
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert taken(only(copied, "*.onnx")) == "opencv .onnx"
    with pytest.raises(InputError, match=r"onnxruntime is not .*'gluon_asymmnet\[onnx\]'"):
        Predictor(only(copied, "*.onnx"), "onnxruntime")
    only(copied, "*.onnx").unlink()
    assert taken(copied) == "mxnet .json"
    assert taken(exported[1].weights) == "mxnet .params"
    assert gluon_asymmnet.Predictor is Predictor


@pytest.mark.thorough
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_engines_without_mxnet(exported, tmp_path, engine):
    (tmp_path / "a.jpg").write_bytes(encode(picture()))
    code = (
        "import sys, json\n"
        "sys.modules['mxnet'] = None  # as if it were not installed\n"
        "from gluon_asymmnet import Predictor\n"
        "found = Predictor(sys.argv[1], sys.argv[2]).classify([sys.argv[3]])\n"
        "assert sys.modules['mxnet'] is None\n"
        "others = {'onnxruntime', 'openvino', 'onnx', 'torch', 'gluoncv'} - {sys.argv[2]}\n"
        "print(json.dumps(found), others & set(sys.modules), sep='|')"
    )
    done = run_python("-c", code, exported[0], engine, tmp_path / "a.jpg")
    assert done.returncode == 0, done.stderr
    found, others = done.stdout.strip().split("|")
    expected = Predictor(exported[0], "mxnet").classify([tmp_path / "a.jpg"])
    assert [guess[:2] for guess in json.loads(found)[0]] == [list(g[:2]) for g in expected[0]]
    assert others == "set()"
    assert done.stderr == ""


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(engine="tensorrt"), "engine must be auto, mxnet, onnxruntime, openvino, opencv, "),
        (dict(precision="int8"), "precision must be f32, bf16 or auto, got 'int8'"),
        (dict(threads=-1), "threads must be a whole number, 0 "),
        (dict(threads=1.5), "threads must be a whole number, 0 "),
    ],
)
def test_bad_arguments(exported, arguments, message):
    with pytest.raises(InputError, match=message):
        Predictor(exported[0], **arguments)


def test_bad_images_and_settings(exported):
    predictor = Predictor(exported[0])
    for shape in ((3, 32, 32), (2, 3, 64, 64), (2, 32, 32, 3)):
        with pytest.raises(InputError, match=r"images must be \(n, 3, 32, 32\), got \(\d, "):
            predictor.predict(np.zeros(shape, np.float32))
    with pytest.raises(InputError, match="top must be at least 1, got 0"):
        predictor.classify([picture()], top=0)
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        predictor.classify([picture()], batch_size=0)


def test_places_without_a_model(exported, copied, tmp_path):
    with pytest.raises(FileNotFoundError, match="none: no such file or folder"):
        Predictor(tmp_path / "none")
    with pytest.raises(InputError, match="holds neither a run nor an exported model"):
        Predictor(tmp_path)
    for engine, form in (("onnxruntime", "onnx"), ("openvino", "openvino")):
        with pytest.raises(InputError, match=f"holds nothing for {engine}: .*export {form}`"):
            Predictor(tmp_path, engine)
    path = only(copied, "*.onnx")
    shutil.copy(path, copied / "second.onnx")
    with pytest.raises(InputError, match=r"several models: .*, second\.onnx; name one"):
        Predictor(copied, "onnxruntime")
    assert Predictor(path).weights == path


@pytest.mark.parametrize("name", ["onnx", "xml"])
@pytest.mark.parametrize("content", [b"", b"garbage" * 9, None], ids=["empty", "garbage", "cut"])
def test_damaged_files(copied, capfd, name, content):
    path = only(copied, f"*.{name}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)
    for engine in ENGINES[1:] if name == "onnx" else ("openvino",):
        with pytest.raises(
            FormatError, match=rf"{name}(: {engine} cannot read it: | has 0 inp)[^\n]+$"
        ):
            Predictor(path, engine)
    assert capfd.readouterr().err == ""


def test_a_truncated_or_missing_bin(copied):
    path, weights = only(copied, "*.xml"), only(copied, "*.bin")
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(FormatError, match=r"\.xml: openvino cannot read it: "):
        Predictor(path)
    weights.unlink()
    with pytest.raises(FormatError, match=r"\.xml: openvino cannot read it: "):
        Predictor(path)


@pytest.mark.parametrize(
    ("engine", "changes", "message"),
    [
        ("onnxruntime", dict(classes=9, class_names=None), "classes 9 and 10"),
        ("openvino", dict(input_size=64), "input_size 64 and 32"),
        ("openvino", dict(rate=0), "another model than .*: rate 0 and 1"),
        ("onnxruntime", dict(rgb_mean=[1, 2, 3]), "rgb_mean"),
        ("mxnet", dict(classes=9, class_names=None), "gives 10 values per image, .* 9 classes"),
        ("onnxruntime", dict(class_names=NAMES[::-1]), "class_names in another order"),
        ("onnxruntime", dict(class_names=["a"]), "1 class names for 10 classes"),
        ("onnxruntime", dict(input_size=0), "input_size is 0, expected a number from 1 to"),
        ("onnxruntime", dict(classes="ten"), "classes is 'ten'"),
        ("onnxruntime", dict(crop_ratio=0), "crop_ratio is 0, expected above 0"),
        ("onnxruntime", dict(rgb_std=[1, 0, 1]), "the deviations above 0"),
    ],
)
def test_a_card_that_contradicts_the_file(copied, engine, changes, message):
    path = copied / "card.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(FormatError, match=message):
        Predictor(copied, engine)


def test_a_card_may_differ_where_it_does_not_matter(copied):
    path = copied / "card.json"
    changes = {"crop_ratio": 0.5, "class_names": list("abcdefghij"), "parity": None}
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    for engine in ENGINES[:-1]:  # OpenCV needs the parity
        assert Predictor(copied, engine).card == read_card(path)


def test_a_foreign_onnx_file(copied):
    path = only(copied, "*.onnx")
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    card = (copied / "card.json").read_text()
    (copied / "card.json").unlink()
    for engine in ENGINES[1:]:
        with pytest.raises(InputError, match=r"has no card, neither inside nor as card\.json besi"):
            Predictor(path, engine)
    fewer = {**json.loads(card), "classes": 9, "class_names": None}
    (copied / "card.json").write_text(json.dumps(fewer))
    for engine in ("onnxruntime", "openvino"):
        with pytest.raises(FormatError, match="gives 10 values per image, its card says 9 classes"):
            Predictor(path, engine)
    (copied / "card.json").write_text(card.replace('"input_size": 32', '"input_size": 64'))
    with pytest.raises(FormatError, match="takes 32 pixels, its card says input_size 64"):
        Predictor(path, "onnxruntime")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_files_that_are_not_classifiers(tmp_path, engine):
    def written(shape_in, shapes_out):
        helper, f32 = onnx.helper, onnx.TensorProto.FLOAT
        outs = [helper.make_tensor_value_info(f"y{i}", f32, s) for i, s in enumerate(shapes_out)]
        nodes = [helper.make_node("Identity", ["x"], [out.name]) for out in outs]
        graph = helper.make_graph(
            nodes, "g", [helper.make_tensor_value_info("x", f32, shape_in)], outs
        )
        opset = [helper.make_opsetid("", 13)]
        onnx.save(helper.make_model(graph, ir_version=8, opset_imports=opset), tmp_path / "a.onnx")
        return tmp_path / "a.onnx"

    pixels = ["n", 3, 8, 8]
    with pytest.raises(FormatError, match="1 inputs and 2 outputs; a classifier has one of each"):
        Predictor(written(pixels, [pixels, pixels]), engine)
    with pytest.raises(FormatError, match=r"gives .*; a classifier gives \(batch, classes\)"):
        Predictor(written(pixels, [pixels]), engine)
    with pytest.raises(FormatError, match=r"takes .*; a classifier takes \(batch, 3, size, size\)"):
        Predictor(written(["n", 8], [["n", 8]]), engine)


# ------------------------------------------------------------------------------ pictures


def test_guesses_by_hand(exported):
    predictor = Predictor(exported[0])
    pictures = [picture(seed) for seed in range(5)]
    logits = predictor.predict(np.stack([predictor.card.preprocessing(p) for p in pictures]))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = predictor.classify(pictures, top=3, batch_size=2)
    for row, guesses in zip(shares, found):
        assert [g.index for g in guesses] == list(np.argsort(-row)[:3])
        assert [g.name for g in guesses] == [NAMES[g.index] for g in guesses]
        assert [g.probability for g in guesses] == pytest.approx(list(np.sort(row)[::-1][:3]))
    assert sum(g.probability for g in predictor.classify(pictures[:1], top=99)[0]) == (
        pytest.approx(1)
    )
    assert predictor.classify([]) == []


# ------------------------------------------------------------------------------ the commands


@pytest.fixture
def photos(tmp_path):
    """Three pictures, one of them damaged, in a folder with another inside."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(encode(picture(1, 100, 120)))
    (folder / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "more/c.png").write_bytes(encode(picture(2, 100, 120), ".png"))
    return folder


def test_the_command(exported, photos, tmp_path, capsys):
    status = main([
        "predict", str(photos), "--model", str(exported[0]), "--top", "2", "--batch-size", "2",
        "--engine", "onnxruntime", "--json", str(tmp_path / "r.json"),
        "--annotate", str(tmp_path / "marked"),
    ])  # fmt: skip
    out, err = capsys.readouterr()
    assert status == 1
    assert err.splitlines() == [
        f"engine: onnxruntime, {only(exported[0], '*.onnx')}",
        f"skipped {photos}/bad.jpg: truncated JPEG: its end marker is missing",
    ]
    result = json.loads((tmp_path / "r.json").read_text())
    expected = Predictor(exported[0], "mxnet").classify([photos / "a.jpg", photos / "more/c.png"])
    for line, picture_, guesses in zip(out.splitlines()[::2], result["pictures"], expected):
        best = picture_["classes"][0]
        assert (best["index"], best["name"]) == guesses[0][:2]
        assert best["probability"] == pytest.approx(guesses[0].probability, rel=1e-4)
        shown = f"{100 * best['probability']:.2f}"
        assert best["name"] == str(best["index"])  # no class names: the index is shown once
        assert line.split() == [picture_["path"], shown, "%", best["name"]]
    assert len(out.splitlines()) == 4
    assert result["engine"] == "onnxruntime"
    assert [one["path"] for one in result["skipped"]] == [str(photos / "bad.jpg")]
    marked = sorted(p.relative_to(tmp_path) for p in (tmp_path / "marked").rglob("*.*g"))
    assert list(map(str, marked)) == ["marked/photos/a.jpg", "marked/photos/more/c.png"]
    assert read_image(tmp_path / "marked/photos/a.jpg").shape == (100, 120, 3)


def test_the_command_without_drawing_prepares_on_threads(exported, photos, tmp_path, capsys):
    """Same lines and results as with ``--annotate``, which keeps the pictures."""
    for number in range(9):
        (photos / f"n{number}.jpg").write_bytes(encode(picture(number, 300, 200)))
    command = ["predict", str(photos), "--model", str(exported[0]), "--engine", "onnxruntime",
               "--batch-size", "4"]  # fmt: skip
    said, results = [], []
    for further in (["--annotate", str(tmp_path / "marked")], [], ["--scaled-decoding"]):
        assert main([*command, "--json", str(tmp_path / "r.json"), *further]) == 1
        said.append(capsys.readouterr())
        results.append(json.loads((tmp_path / "r.json").read_text()))
    assert said[0] == said[1] and results[0] == results[1]
    assert said[2].err == said[0].err
    predictor = Predictor(exported[0], "onnxruntime")
    files = [one["path"] for one in results[2]["pictures"]]
    expected = predictor.classify(files, scaled_decoding=True, batch_size=4)
    found = [[c["probability"] for c in one["classes"]] for one in results[2]["pictures"]]
    assert found == [[score.probability for score in scores] for scores in expected]
    assert results[2]["pictures"] != results[1]["pictures"]
    assert main([*command, "--scaled-decoding", "--annotate", str(tmp_path / "m")]) == 2
    assert "--scaled-decoding goes without --annotate" in capsys.readouterr().err


def test_the_command_on_a_video(exported, tmp_path, capsys):
    clip = write_video(tmp_path / "clip.mkv", 5)
    status = main([
        "predict", str(clip), "--model", str(exported[0]), "--engine", "onnxruntime", "--top", "1",
        "--frames", "3", "--csv", str(tmp_path / "r.csv"), "--annotate", str(tmp_path / "marked"),
    ])  # fmt: skip
    assert status == 0
    table = (tmp_path / "r.csv").read_text().splitlines()
    assert table[0] == "path,frame,seconds,index,name,probability"
    assert [row.split(",")[:3] for row in table[1:]] == [
        [str(clip), "0", "0.0"], [str(clip), "1", "0.2"], [str(clip), "2", "0.4"]
    ]  # fmt: skip
    frames = [frame.rgb for frame in read_frames(find_inputs([clip]))]
    expected = Predictor(exported[0], "onnxruntime").classify(frames[:3], 1)
    for row, (best,) in zip(table[1:], expected):
        assert row.split(",")[3] == str(best.index)
        assert float(row.split(",")[5]) == pytest.approx(best.probability, rel=1e-4)
    assert Video(str(tmp_path / "marked/clip.mkv.mp4"), "marked").frames == 3
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert main([
        "predict", str(clip), "--model", str(exported[0]), "--engine", "onnxruntime", "--top", "1",
        "--frames", "3", "--csv", str(tmp_path / "again.csv"),
    ]) == 0  # fmt: skip
    assert (tmp_path / "again.csv").read_text().splitlines() == table  # prepared on the thread
    capsys.readouterr()
    assert main(["predict", str(clip), "--model", str(exported[0]), "--frames", "-1"]) == 2
    assert "--frames must be at least 0" in capsys.readouterr().err


def test_the_command_refuses(exported, photos, tmp_path, capsys):
    model = ["--model", str(exported[0])]
    (tmp_path / "a.jpg").write_bytes(b"")
    for arguments, message in (
        ([str(photos), "--annotate", str(tmp_path)], "would write over"),
        (
            [str(photos / "a.jpg"), str(tmp_path / "a.jpg"), "--annotate", "x"],
            "would be written to x/a.jpg",
        ),
        ([str(photos), "--top", "0"], "--top must be at least 1, got 0"),
        ([str(photos), "--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        ([str(tmp_path / "none")], "none: no such file or folder"),
    ):
        assert main(["predict", *arguments, *model]) == 2
        out, err = capsys.readouterr()
        assert message in err
        assert (out, len(err.splitlines())) == ("", 1)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "auto"])
@pytest.mark.thorough
def test_eval_of_an_exported_folder_needs_no_mxnet(exported, digits, tmp_path, engine):
    code = (
        "import sys; sys.modules['mxnet'] = None; from gluon_asymmnet.cli import main;"
        "sys.exit(main(['eval', *sys.argv[1:]]))"
    )
    arguments = ["imagenet", exported[0], "--rec-val", digits.val]
    done = run_python("-c", code, *arguments, "--engine", engine)
    assert done.returncode == 0, done.stderr
    by_mxnet = run_python(ROOT / "eval.py", *arguments, "--engine", "mxnet")
    assert done.stdout == by_mxnet.stdout
    assert "449 images" in done.stdout


def test_the_end_of_a_stream_is_said(exported, capsys):
    command = ["predict", "--model", str(exported[0]), "--top", "1", "--every", "2"]
    with serve({"/live": [encode(shade(number)) for number in range(7)]}) as address:
        assert main([*command, f"{address}/live"]) == 0
        out, err = capsys.readouterr()
        assert len(out.splitlines()) == 4
        assert err.splitlines()[-1] == f"{address}/live: the stream ended after 7 frames"
        assert main([*command, f"{address}/live", "--frames", "2"]) == 0
        assert "the stream ended" not in capsys.readouterr().err


@pytest.mark.parametrize("threads", [1, 3])
def test_as_many_threads_read_as_compute(exported, tmp_path, monkeypatch, threads):
    together, seen = threading.Barrier(threads, timeout=60), set()

    def read(*_):
        together.wait()
        seen.add(threading.get_ident())
        return picture(40, 30)

    for number in range(9):
        (tmp_path / f"{number}.png").write_bytes(encode(picture(9, 9), ".png"))
    paths = sorted(tmp_path.iterdir())
    monkeypatch.setattr("gluon_asymmnet.predict.read_image", read)
    assert len(Predictor(exported[0], "onnxruntime", threads=threads).classify(paths)) == 9
    assert len(seen) == threads
    seen.clear()
    monkeypatch.setattr("gluon_asymmnet.predict.inputs.read_image", read)
    command = ["predict", tmp_path, "--model", exported[0], "--threads", threads]
    assert main([str(word) for word in command]) == 0
    assert len(seen) == threads


def test_eval_chooses_the_engine_once(exported, digits, monkeypatch, capsys):
    chosen, choose = [], choice.choose_engine
    monkeypatch.setattr(choice, "choose_engine", lambda *a: chosen.append(choose(*a)) or chosen[-1])
    assert main(["eval", "imagenet", str(exported[0]), "--rec-val", str(digits.val)]) == 0
    assert len(chosen) == 1
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("engine: ")]
    assert "for one image, measured " in line


def test_eval_refuses(exported, digits, capsys):
    folder, made = exported
    data = ["--rec-val", str(digits.val)]
    for arguments, message in (
        ([folder, "--input-size", "64"], "takes 32 pixels, --input-size says 64: export the net"),
        ([folder, "--classes", "9"], "--classes goes with --model and a .params file"),
        ([made.weights, "--precision", "bf16"], "bf16 is for openvino; MXNet computes in f32"),
        ([made.weights, "--engine", "openvino"], "holds nothing for openvino"),
    ):
        assert main(["eval", "imagenet", *map(str, arguments), *data]) == 2
        out, err = capsys.readouterr()
        assert message in err
        assert (out, len(err.splitlines())) == ("", 1)
    assert main(["eval", "imagenet", str(folder), "--crop-ratio", "0.5", *data]) == 0
