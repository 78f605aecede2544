"""Detection by the commands: pictures, videos, tiles, thresholds of classes and COCO's files."""

import csv
import json
import shutil

import numpy as np
import pytest

from gluon_asymmnet import DetectorPredictor
from gluon_asymmnet.cli import main
from gluon_asymmnet.data.images import encode
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.evaluation.drawing import class_colour
from gluon_asymmnet.predict.images import read_image
from gluon_asymmnet.predict.inputs import Reading, find_inputs, read_frames
from gluon_asymmnet.predict.tiles import Tiling
from gluon_asymmnet.predict.video import Video
from tests.test_detection_records import LABEL, write_rec
from tests.videos import write_video


def test_the_command(detector, photos, tmp_path, capsys):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    (folder / "a.png").write_bytes(encode(read_image(photos[-2]), ".png"))
    (folder / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    shutil.copy(photos[0], folder / "more/c.jpg")
    status = main([
        "detect", str(folder), "--model", str(detector[1]), "--engine", "onnxruntime",
        "--score-threshold", "0.1", "--json", str(tmp_path / "r.json"),
        "--annotate", str(tmp_path / "marked"), "--batch-size", "2",
    ])  # fmt: skip
    out, err = capsys.readouterr()
    assert status == 1
    assert err.splitlines() == [
        f"engine: onnxruntime, {next(detector[1].glob('*.onnx'))}",
        f"skipped {folder}/bad.jpg: truncated JPEG: its end marker is missing",
    ]
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["engine"] == "onnxruntime"
    assert [one["path"] for one in result["skipped"]] == [str(folder / "bad.jpg")]
    paths = [folder / "a.png", folder / "more/c.jpg"]
    expected = DetectorPredictor(detector[1], "openvino").detect(paths, 0.1)
    rows = iter(out.splitlines())
    for path, shown, found in zip(paths, result["pictures"], expected):
        assert shown["path"] == str(path)
        assert [o["label"] for o in shown["objects"]] == found.labels.tolist()
        for place, (one, box) in enumerate(zip(shown["objects"], found.boxes)):
            assert one["box"] == pytest.approx(box, abs=0.5)
            assert one["name"] == ("cat", "dog", "fish")[one["label"]]
            line = next(rows).split()
            assert line[-6:] == [
                f"{one['score']:.3f}", *(f"{v:.1f}" for v in one["box"]), one["name"]
            ]  # fmt: skip
            assert line[:-6] == ([str(path)] if place == 0 else [])
    assert next(rows, None) is None
    assert (tmp_path / "marked/photos/more/c.jpg").is_file()
    marked = read_image(tmp_path / "marked/photos/a.png")
    for label, (left, top, right, bottom) in zip(expected[0].labels, expected[0].boxes):
        edges = marked[round(top) : round(bottom), [round(left), round(right) - 1]]
        assert (edges == class_colour(label)).all(axis=-1).any()


def test_the_command_finds_nothing_and_refuses(detector, photos, tmp_path, capsys):
    model = ["--model", str(detector[1])]
    assert main(["detect", str(photos[0]), "--score-threshold", "1", *model]) == 0
    assert capsys.readouterr().out.split() == [str(photos[0]), "nothing"]
    for arguments, message in (
        (["--score-threshold", "2"], "--score-threshold must be from 0 to 1, got 2.0"),
        (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--overlap", "0.1"], "--overlap and --tiles-only go with --tiles or --tile-size"),
        (["--coco-ids", "x"], "--coco-ids goes with --coco"),
        (["--annotate", str(photos[0].parent)], "would write over"),
        (["--engine", "mxnet", "--precision", "bf16"], "bf16 is for openvino"),
    ):
        assert main(["detect", str(photos[0]), *arguments, *model]) == 2
        out, err = capsys.readouterr()
        assert message in err
        assert (out, len(err.splitlines())) == ("", 1)


@pytest.mark.thorough
def test_export_of_a_run_by_the_command(detector, photos, tmp_path, capsys):
    run, out = detector[0], tmp_path / "out"
    assert main(["export", "all", str(run / "best.params"), str(out)]) == 0
    printed, err = capsys.readouterr()
    assert printed.count("pixels in a box, on 4 images") == 5
    assert err == ""
    found = [DetectorPredictor(path, "mxnet").detect(photos[:1])[0] for path in (run, out)]
    np.testing.assert_array_equal(found[0].labels, found[1].labels)
    rec = write_rec(tmp_path, LABEL, LABEL)
    assert main(["export", "onnx", str(run), str(tmp_path / "real"), "--rec-val", str(rec)]) == 0
    assert "pixels in a box, on 2 images" in capsys.readouterr().out
    for flags, message in (
        (["--input-size", "320"], f"--input-size is for classifiers; {run} holds a detector"),
        (["--optimized"], "--optimized is for AsymmNet and MobileNetV3"),
        (["--rec-val", "none.rec"], "none.rec"),
    ):
        assert main(["export", "symbol", str(run), str(tmp_path / "other"), *flags]) == 2
        printed, err = capsys.readouterr()
        assert message in err
        assert (printed, len(err.splitlines())) == ("", 1)
    assert not (tmp_path / "other").exists()


# --- Videos, thresholds, tiles, COCO -------------------------------------------------------------


def test_tiles_find_what_crops_find(detector, photos):
    """Four photographs side by side: with tiles at their places, each finds what it finds alone."""
    side = 200
    crops = [np.ascontiguousarray(read_image(path)[:side, :side]) for path in photos[:4]]
    whole = np.concatenate([np.hstack(crops[:2]), np.hstack(crops[2:])])
    predictor = DetectorPredictor(detector[1], "onnxruntime")
    tiling = Tiling(size=side, overlap=0, whole=False)
    (merged,) = predictor.detect([whole], 0.1, tiling=tiling)
    expected = []
    for number, found in enumerate(predictor.detect(crops, 0.1)):
        shift = np.float32([side * (number % 2), side * (number // 2)] * 2)
        inner = [(2, 3), (0, 3), (2, 1), (0, 1)][number]  # corners at the borders of other tiles
        limits = np.float32([0, 0, side, side])[list(inner)]
        cut = (np.abs(found.boxes[:, list(inner)] - limits) <= 2).any(axis=1)
        rows = zip(found.scores, found.labels, found.boxes + shift, cut)
        expected += [(score, label, tuple(box)) for score, label, box, part in rows if not part]
    shown = list(zip(merged.scores, merged.labels, map(tuple, merged.boxes)))
    assert len(expected) > 20
    assert set(expected) <= set(shown)  # exact: scores and boxes in the picture's pixels
    assert merged.scores.tolist() == sorted(merged.scores.tolist(), reverse=True)
    (united,) = predictor.detect([whole], 0.1, tiling=tiling._replace(whole=True))
    (alone,) = predictor.detect([whole], 0.1)
    assert set(map(tuple, alone.boxes)) & set(map(tuple, united.boxes))
    with pytest.raises(InputError, match="one of them"):
        predictor.detect([whole], tiling=Tiling())


def test_thresholds_of_classes(detector, photos):
    predictor = DetectorPredictor(detector[1], "onnxruntime")
    (everything,) = predictor.detect(photos[:1], 0.1)
    (some,) = predictor.detect(photos[:1], 0.1, class_thresholds={"cat": 0.4, " dog": 1.0})
    expected = [
        (name, score) for name, score in zip(everything.names, everything.scores)
        if score >= {"cat": np.float32(0.4), "dog": 1}.get(name, 0.1)
    ]  # fmt: skip
    assert list(zip(some.names, some.scores)) == expected
    assert 0 < len(expected) < len(everything.names)
    with pytest.raises(
        InputError, match=r"only in the thresholds: 'cta'; only in the model: 'cat'"
    ):
        predictor.detect(photos[:1], class_thresholds={"cta": 0.5})
    with pytest.raises(InputError, match=r"the threshold of 'cat' must be from 0 to 1, got 5"):
        predictor.detect(photos[:1], class_thresholds={"cat": 5})


def test_the_command_on_a_video(detector, tmp_path, capsys):
    clip = write_video(tmp_path / "clip.avi", 7, size=(63, 47))
    status = main([
        "detect", str(clip), "--model", str(detector[1]), "--engine", "opencv",
        "--every", "2", "--batch-size", "3",
        "--score-threshold", "0.2", "--json", str(tmp_path / "r.json"),
        "--csv", str(tmp_path / "r.csv"), "--annotate", str(tmp_path / "marked"),
        "--score", "fish=0.9", "--coco", str(tmp_path / "coco.json"),
    ])  # fmt: skip
    out, err = capsys.readouterr()
    assert (status, len(err.splitlines())) == (0, 1)
    rows = json.loads((tmp_path / "r.json").read_text())["pictures"]
    assert [(row["path"], row["frame"], row["seconds"]) for row in rows] == [
        (str(clip), 0, 0.0), (str(clip), 2, 0.4), (str(clip), 4, 0.8), (str(clip), 6, 1.2),
    ]  # fmt: skip
    frames = [frame.rgb for frame in read_frames(find_inputs([str(clip)]), Reading(every=2))]
    predictor = DetectorPredictor(detector[1], "opencv")
    expected = predictor.detect(frames, 0.2, class_thresholds={"fish": 0.9})
    for row, found in zip(rows, expected):
        assert [one["name"] for one in row["objects"]] == found.names
    assert sum(len(found.names) for found in expected) > 4
    table = list(csv.DictReader((tmp_path / "r.csv").read_text().splitlines()))
    assert {int(row["frame"]) for row in table} == {0, 2, 4, 6}
    assert len(table) == sum(max(1, len(found.names)) for found in expected)
    assert float(table[0]["xmin"]) == rows[0]["objects"][0]["box"][0]
    marked = Video(str(tmp_path / "marked/clip.avi.mp4"), "marked")
    assert (marked.frames, marked.rate) == (4, 2.5)
    drawn = marked.read().rgb[:48, :64]
    assert np.abs(drawn.astype(int) - frames[0]).max() > 50
    assert out.count(f"{clip}#") == 4
    assert len(json.loads((tmp_path / "coco.json").read_text())) == sum(
        len(found.names) for found in expected
    )


@pytest.mark.thorough
def test_the_command_writes_coco(detector, photos, tmp_path, capsys):
    """pycocotools loads the results; boxes are those of the annotations' convention."""
    from pycocotools.coco import COCO

    folder = tmp_path / "photos"
    folder.mkdir()
    for number, path in enumerate(photos[:2]):
        shutil.copy(path, folder / f"{number}.jpg")
    ids = {
        "images": [{"id": 70, "file_name": "1.jpg"}, {"id": 30, "file_name": "photos/0.jpg"}],
        "categories": [{"id": k, "name": name} for k, name in zip((9, 4), ("fish", "dog"))],
        "annotations": [], "info": {},
    }  # fmt: skip
    ids["categories"].append({"id": 2, "name": "cat"})
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    options = ["--model", str(detector[1]), "--coco", str(tmp_path / "out.json")]
    taken = ["--coco-ids", str(tmp_path / "ids.json")]
    assert main(["detect", str(folder), *options, *taken]) == 0
    truth = COCO(str(tmp_path / "ids.json"))
    results = truth.loadRes(str(tmp_path / "out.json"))
    expected = DetectorPredictor(detector[1]).detect(sorted(folder.iterdir()))
    for image_id, found, path in zip((30, 70), expected, sorted(folder.iterdir())):
        height, width = read_image(path).shape[:2]
        entries = results.loadAnns(results.getAnnIds([image_id]))
        assert [truth.cats[one["category_id"]]["name"] for one in entries] == found.names
        for one, (left, top, right, bottom) in zip(entries, found.boxes):
            expected_box = [left, top, min(right + 1, width) - left, min(bottom + 1, height) - top]
            assert one["bbox"] == pytest.approx(expected_box, abs=1e-3)
    assert main(["detect", str(folder), *options]) == 0
    entries = json.loads((tmp_path / "out.json").read_text())
    assert {one["image_id"] for one in entries} == {1, 2}
    assert {one["category_id"] for one in entries} <= {1, 2, 3}
    capsys.readouterr()
    for change, flags, message in (
        ({"images": ids["images"][:1]}, taken, r"has no image '0.jpg', or several"),
        (
            {"categories": ids["categories"][:2]},
            taken,
            "only in the model: 'cat'",
        ),
        ({"categories": [{"id": 1}]}, taken, "has no id or no name"),
        ({}, ["--score", "cta=0.5"], "only in the thresholds: 'cta'"),
        ({}, ["--tiles", "2", "--tile-size", "9"], "one of them"),
    ):
        (tmp_path / "ids.json").write_text(json.dumps({**ids, **change}))
        (tmp_path / "out.json").unlink(missing_ok=True)
        assert main(["detect", str(folder), *options, *flags]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out.json").exists()
    with pytest.raises(SystemExit):
        main(["detect", str(folder), *options, "--score", "cat"])
    assert "'cat': expected CLASS=SCORE" in capsys.readouterr().err
