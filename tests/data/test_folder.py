"""A folder of images: its classes, its damaged files, and the kinds of files that it may hold."""

import io
import os
import warnings

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import kvae.data


@pytest.fixture
def folder(tmp_path, rng):
    """train/{a, b, c} and test/{a, b, c}, where test/b is empty; the images of class k are 10 k + 1 all over."""
    for part in ("train", "test"):
        for number, name in enumerate("abc"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(0 if (part, name) == ("test", "b") else 2):
                pixels = np.full((4, 4, 3), 10 * number + 1, np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{i}.png")
    return tmp_path


def pairs(stream):
    return {(int(x[0, 0, 0]) // 10, int(y)) for xs, ys in stream for x, y in zip(xs.numpy(), ys.numpy(), strict=True)}


def test_folders_without_images_keep_their_number(folder):
    (folder / "test" / ".hidden").mkdir()
    for part, numbers in (("train", {0, 1, 2}), ("test", {0, 2})):
        stream = kvae.data.from_folder(folder / part, labels=True)
        assert pairs(stream) == {(number, number) for number in numbers}
        assert stream.class_names == stream.take(1).class_names == ("a", "b", "c")
    assert kvae.data.from_folder(folder / "train").class_names is None


def test_class_names_give_the_numbers(folder):
    (folder / "test" / "b").rmdir()
    train = kvae.data.from_folder(folder / "train", labels=True)
    assert pairs(kvae.data.from_folder(folder / "test", labels=True)) == {(0, 0), (2, 1)}
    test = kvae.data.from_folder(folder / "test", labels=True, class_names=train.class_names)
    assert pairs(test) == {(0, 0), (2, 2)} and test.class_names == train.class_names
    assert pairs(kvae.data.from_folder(folder / "test", labels=True, class_names=list("cba"))) == {(0, 2), (2, 0)}
    with pytest.raises(ValueError, match=r"train has folders that class_names lacks: b; expected among \['c', 'a'\]"):
        kvae.data.from_folder(folder / "train", labels=True, class_names=["c", "a"])
    other = kvae.data.from_folder(folder / "test", labels=True)
    with pytest.raises(
        ValueError, match=r"the splits number other classes, train \['a', 'b', 'c'\], test \['a', 'c'\]"
    ):
        kvae.data.pack({"train": train, "test": other}, folder / "packed")
    for bad in (["a", "b", "c", "a"], ["a", 1]):
        with pytest.raises(ValueError, match="expected the names of folders, each once"):
            kvae.data.from_folder(folder / "train", labels=True, class_names=bad)


def test_paths_are_labels(folder):
    stream = kvae.data.from_folder(folder / "train", 4, labels="path", shuffle=1)
    seen = [(x, y) for xs, ys in stream.epoch(1) for x, y in zip(xs.numpy(), ys.numpy().astype(str), strict=True)]
    assert sorted(y for _, y in seen) == [f"{name}/{i}.png" for name in "abc" for i in range(2)]
    for x, y in seen:
        np.testing.assert_array_equal(x, np.asarray(Image.open(folder / "train" / y)))
    _, y = next(iter(kvae.data.from_folder(folder / "train", labels=("path", "label"))))
    assert [each[0] for each in y["path"].numpy().astype(str)] == ["abc"[number] for number in y["label"].numpy()]
    with pytest.raises(ValueError, match="labels is 'name', expected False, True, one of"):
        kvae.data.from_folder(folder / "train", labels="name")


def broken(folder):
    for path in ("train/a/1.png", "train/c/0.png", "train/c/1.png", "train/b/x.gif", "train/a/y.bmp"):
        (folder / path).write_bytes((folder / "train/a/0.png").read_bytes()[:60])
    return folder / "train"


def test_damaged_files_are_told_together(folder):
    path = broken(folder)
    message = (
        rf"5 files can\'t be decoded, {path}/a/1\.png, {path}/a/y\.bmp, {path}/b/x\.gif and 2 more: they are missing, "
        r'cut or altered; restore them or leave them out, or give damaged="skip"'
    )
    stream = kvae.data.from_folder(path, 2)
    with pytest.raises(OSError, match=f"^{message}$"):  # iterated by hand, outside of clear_errors
        list(stream)
    os.remove(path / "a" / "0.png")
    with pytest.raises(OSError, match=r"^5 files can't be decoded"):  # the first one is one of them
        kvae.data.from_folder(path)


def test_damaged_files_are_left_out_if_asked_for(folder):
    path = broken(folder)
    with pytest.warns(UserWarning, match=r"5 of 8 files are left out, since they can't be decoded: a/1\.png, a/y\.bmp"):
        stream = kvae.data.from_folder(path, 2, labels=True, damaged="skip")
    assert pairs(stream) == {(0, 0), (1, 1)} and stream.class_names == ("a", "b", "c") and stream.num_batches == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kvae.data.from_folder(folder / "test", damaged="skip")
    Image.fromarray(np.zeros((5, 4, 3), np.uint8)).save(path / "c" / "0.png")
    with pytest.raises(ValueError, match=r"c/0\.png has the shape \(5, 4, 3\), expected \(4, 4, 3\) as the first has"):
        kvae.data.from_folder(path, damaged="skip")
    for each in path.rglob("*.*"):
        each.write_bytes(b"")
    with pytest.raises(OSError, match="holds 8 images, none of which can be decoded"):
        kvae.data.from_folder(path, damaged="skip")
    with pytest.raises(ValueError, match="damaged is 'maybe'"):
        kvae.data.from_folder(path, damaged="maybe")


def test_other_images_are_named_and_no_other_files(folder):
    for name in ("a/x.webp", "a/y.WEBP", "b/z.tiff", "b/notes.txt", "c/._0.png", "c/.DS_Store"):
        (folder / "train" / name).write_bytes(b"something")
    os.mkfifo(folder / "train" / "a" / "pipe.png")
    (folder / "train" / "a" / "folder.png").mkdir()
    (folder / "train" / "a" / "zero.png").symlink_to("/dev/zero")
    with pytest.warns(UserWarning, match="left out") as warned:
        stream = kvae.data.from_folder(folder / "train", labels=True)
    (message,) = {str(each.message) for each in warned}
    assert all(each in message for each in ("2 .webp (such as a/", "1 .tiff (such as b/z.tiff)", "to PNG or JPEG"))
    assert "txt" not in message and sum(len(x) for x, _ in stream) == 6
    assert warned[0].filename == __file__


def encoded(mode, kind, pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()


KINDS = {
    "GIF": ("P", "gif"),
    "palette BMP": ("P", "bmp"),
    "gray BMP": ("L", "bmp"),
    "BMP": ("RGB", "bmp"),
    "black and white BMP": ("1", "bmp"),
    "CMYK JPEG": ("CMYK", "jpg"),
    "JPEG": ("RGB", "jpg"),
    "gray JPEG": ("L", "jpg"),
    "palette PNG": ("P", "png"),
    "PNG with alpha": ("RGBA", "png"),
}


@pytest.fixture
def kinds(tmp_path, rng):
    pixels = np.repeat(np.repeat(rng.integers(0, 256, (2, 2, 3), np.uint8), 8, 0), 8, 1)
    for number, (mode, suffix) in enumerate(KINDS.values()):
        (tmp_path / f"{number:02}.{suffix}").write_bytes(encoded(mode, {"jpg": "JPEG"}.get(suffix, suffix), pixels))
    return sorted(tmp_path.iterdir())


def expected(file, mode):
    image = Image.open(file)
    return np.asarray(image.convert("RGB" if image.mode == "CMYK" else image.mode).convert(mode))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_images_of_every_kind_are_converted_as_pillow_converts_them(kinds, channels, mode):
    (found,) = kvae.data.from_folder(kinds[0].parent, channels=channels)
    for name, image, file in zip(KINDS, found, kinds, strict=True):
        np.testing.assert_allclose(np.squeeze(image), expected(file, mode), atol=5, err_msg=name)


def test_images_of_every_kind_have_their_own_channels(kinds):
    for file, channels in zip(kinds, (3, 3, 1, 3, 1, 3, 3, 1, 3, 4), strict=True):
        if file.suffix != ".png":  # which TensorFlow alone decodes
            folder = file.with_suffix("")
            folder.mkdir()
            file.rename(folder / file.name)
            (found,) = kvae.data.from_folder(folder)
            assert found.shape == (1, 16, 16, channels)
            mode = "L" if channels == 1 else "RGB"
            np.testing.assert_allclose(np.squeeze(found), expected(folder / file.name, mode), atol=5)


def test_what_tensorflow_keeps_of_a_stream_does_not_keep_its_names(folder):
    stream = kvae.data.from_folder(folder / "train")
    assert isinstance(iter(stream), type(iter(tf.data.Dataset.range(1))))
