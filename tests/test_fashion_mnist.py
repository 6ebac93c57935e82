"""Fashion-MNIST from its IDX files: where they are looked for, and how they can be damaged."""

from __future__ import annotations

import gzip
import os
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemmc
from gemmc.frontend import datasets, download, idx
from gemmc.frontend.datasets import fashion_mnist
from gemmc.ir import environment

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
PIXELS = bytes(i % 251 for i in range(4 * 28 * 28))  # of four images


def images(count: int, rows: int = 28, columns: int = 28, pixels: bytes = PIXELS) -> bytes:
    return struct.pack(">4I", 0x0803, count, rows, columns) + pixels


def labels(count: int, values: bytes) -> bytes:
    return struct.pack(">2I", 0x0801, count) + values


def write(folder: Path, first_label: int = 0) -> Path:
    """Makes a folder of four good IDX files with 4 training and 3 test images."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in [("train", 4), ("t10k", 3)]:
        pixels = PIXELS[: count * 28 * 28]
        values = bytes([first_label, 1, 2, 3][:count])
        (folder / f"{part}-images-idx3-ubyte").write_bytes(images(count, pixels=pixels))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels(count, values))
    return folder


@pytest.fixture(autouse=True)
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets of 4 and 3 images, a cache folder of this test, no package of Debian's, no network."""
    monkeypatch.setattr(datasets, "TRAIN_IMAGES", 4)
    monkeypatch.setattr(datasets, "TEST_IMAGES", 3)
    monkeypatch.setattr(datasets, "DEBIAN_FOLDER", tmp_path / "debian")
    monkeypatch.setattr(environment, "CACHES", {})
    monkeypatch.setattr(download, "MIRRORS", ())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.delenv("GEMMC_DATA", raising=False)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write(tmp_path / "tiny")


# Where the files are found


def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """What puts files there for Debian, into the cache, and where GEMMC_DATA says; labels tell."""
    data = tmp_path / "data"
    return [
        lambda: write(tmp_path / "debian", 1),
        lambda: write(tmp_path / "caches" / "gemmc" / "fashion-mnist", 2),
        lambda: monkeypatch.setenv("GEMMC_DATA", str(write(data, 3))),
    ]


def test_root_comes_before_gemmc_data_before_the_cache_before_debian(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label, appear in enumerate(places(tmp_path, monkeypatch), 1):
        appear()
        assert fashion_mnist()[1][0] == label
        assert fashion_mnist(tiny)[1][0] == 0


@pytest.mark.parametrize("name", datasets.FILES)
def test_a_cache_that_lacks_a_file_leaves_it_to_debian(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for appear in places(tmp_path, monkeypatch)[:2]:
        appear()
    (tmp_path / "caches" / "gemmc" / "fashion-mnist" / name).unlink()
    assert fashion_mnist()[1][0] == 1


@pytest.mark.parametrize("source", ["root", "GEMMC_DATA"])
@pytest.mark.parametrize("name", datasets.FILES)
def test_a_named_folder_that_lacks_a_file_is_an_error_even_if_others_have_it(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, source: str, name: str
) -> None:
    for appear in places(tmp_path, monkeypatch)[:2]:
        appear()
    (tiny / name).unlink()
    monkeypatch.setenv("GEMMC_DATA", str(tiny))
    message = f"{source}: no file {name} or {name}.gz in {tiny}.*leave {source} out"
    with pytest.raises(gemmc.DataError, match=message):
        fashion_mnist(tiny if source == "root" else None)


def test_gemmc_data_that_is_no_folder_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "debian")
    monkeypatch.setenv("GEMMC_DATA", "/no/such/folder")
    with pytest.raises(gemmc.DataError, match="GEMMC_DATA is '/no/such/folder', which is not a fo"):
        fashion_mnist()
    monkeypatch.setenv("GEMMC_DATA", "")  # as unset
    assert len(fashion_mnist()[0]) == 4


def test_the_subset_needs_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMMC_DATA", "/no/such/folder")
    assert len(fashion_mnist(subset=True)[0]) == 6000


def test_what_is_looked_for_is_what_is_downloaded() -> None:
    assert set(datasets.FILES) == set(download.FILES)


@pytest.mark.parametrize(
    "platform, variables, expected",
    [
        ("linux", {}, "/home/ada/.cache/gemmc"),
        ("linux", {"XDG_CACHE_HOME": "/fast/caches"}, "/fast/caches/gemmc"),
        ("linux", {"XDG_CACHE_HOME": "caches"}, "/home/ada/.cache/gemmc"),
        ("linux", {"XDG_CACHE_HOME": ""}, "/home/ada/.cache/gemmc"),
        ("freebsd14", {}, "/home/ada/.cache/gemmc"),
        ("darwin", {}, "/home/ada/Library/Caches/gemmc"),
        ("darwin", {"XDG_CACHE_HOME": "/fast"}, "/home/ada/Library/Caches/gemmc"),
        ("win32", {"LOCALAPPDATA": "/ada/local"}, "/ada/local/gemmc"),
        ("win32", {}, "/home/ada/AppData/Local/gemmc"),
    ],
)
def test_the_cache_folder_is_the_one_of_the_platform(
    monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], expected: str
) -> None:
    monkeypatch.undo()
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/ada", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert environment.cache_folder() == Path(expected)


def test_a_user_without_a_home_has_no_cache_but_may_have_debians_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert environment.cache_folder() is None
    with pytest.raises(gemmc.DataError, match="no home to download to.*GEMMC_DATA"):
        fashion_mnist()
    write(tmp_path / "debian")
    assert len(fashion_mnist()[0]) == 4


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"root": "/no/such/folder"}, "root is '/no/such/folder', which is not a folder"),
        ({"root": 3}, "root is 3, expected the path of a folder"),
        ({"subset": "yes"}, "subset is 'yes', expected True or False"),
        ({"root": ".", "subset": True}, "leave one of them out"),
    ],
)
def test_a_bad_argument_of_fashion_mnist_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(gemmc.DataError, match=message):
        fashion_mnist(**arguments)


# What good files give


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_read_plain_or_packed(tiny: Path, packed: bool) -> None:
    if packed:
        for name in datasets.FILES:
            (tiny / f"{name}.gz").write_bytes(gzip.compress((tiny / name).read_bytes()))
            (tiny / name).unlink()
    X_train, y_train, X_test, y_test = fashion_mnist(str(tiny))
    assert X_train.tobytes() == PIXELS
    assert X_test.tobytes() == PIXELS[: 3 * 28 * 28]
    assert (y_train.tolist(), y_test.tolist()) == ([0, 1, 2, 3], [0, 1, 2])
    assert all(array.flags.writeable for array in (X_train, y_train, X_test, y_test))


def test_an_idx_file_may_be_unpacked_under_its_packed_name(tiny: Path) -> None:
    for name in datasets.FILES:
        (tiny / name).rename(tiny / f"{name}.gz")
    assert len(fashion_mnist(tiny)[0]) == 4


# What damaged files give


PLAIN, FOUR = images(4), labels(4, bytes(range(4)))
STORED = gzip.compress(FOUR, 0)  # 10 bytes of header, 5 of block, 12 of data, 8 of sum and size
PACKED = gzip.compress(PLAIN)
HEADER = gzip.compress(images(2**32 - 1, pixels=b""))


def flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


# What it is: the file it is in, with .gz in place of the plain one; its content; what is said.
DAMAGED = {
    "empty": (IMAGES, b"", "header has 0 bytes, expected 16"),
    "one byte": (IMAGES, b"\0", "header has 1 bytes, expected 16"),
    "half a magic number": (IMAGES, PLAIN[:3], "header has 3 bytes, expected 16"),
    "no count": (IMAGES, PLAIN[:4], "header has 4 bytes, expected 16"),
    "no rows": (IMAGES, PLAIN[:8], "header has 8 bytes, expected 16"),
    "no columns": (IMAGES, PLAIN[:12], "header has 12 bytes, expected 16"),
    "half of columns": (IMAGES, PLAIN[:15], "header has 15 bytes, expected 16"),
    "no magic number for labels": (LABELS, b"", "header has 0 bytes, expected 8"),
    "no count of labels": (LABELS, FOUR[:7], "header has 7 bytes, expected 8"),
    "first byte of magic": (IMAGES, flip(PLAIN, 0), "magic number is 0xff000803, expected 0x0000"),
    "second byte of magic": (IMAGES, flip(PLAIN, 1), "magic number is 0x00ff0803, expected"),
    "third byte of magic": (IMAGES, flip(PLAIN, 2), "magic number is 0x0000f703, expected"),
    "fourth byte of magic": (IMAGES, flip(PLAIN, 3), "magic number is 0x000008fc, expected"),
    "first byte, labels": (LABELS, flip(FOUR, 0), "magic number is 0xff000801, expected"),
    "fourth byte, labels": (LABELS, flip(FOUR, 3), "magic number is 0x000008fe, expected"),
    "floats": (IMAGES, b"\0\0\x0d\x03" + PLAIN[4:], "magic number is 0x00000d03, expected"),
    "two dimensions": (IMAGES, b"\0\0\x08\x02" + PLAIN[4:], "is 0x00000802, expected"),
    "four dimensions": (IMAGES, b"\0\0\x08\x04" + PLAIN[4:], "is 0x00000804, expected"),
    "no dimension": (LABELS, b"\0\0\x08\0" + FOUR[4:], "is 0x00000800, expected 0x00000801"),
    "little endian": (IMAGES, struct.pack("<4I", 2051, 4, 28, 28) + PIXELS, "is 0x03080000"),
    "labels for images": (IMAGES, FOUR, r"0x00000801 \(labels\), expected 0x00000803 \(images\)"),
    "images for labels": (LABELS, PLAIN, r"0x00000803 \(images\), expected 0x00000801 \(labels\)"),
    "no images": (IMAGES, images(0), "number of images is 0, expected 4"),
    "fewer images": (IMAGES, images(3), "number of images is 3, expected 4"),
    "more images": (IMAGES, images(5), "number of images is 5, expected 4"),
    "-1 images": (IMAGES, images(2**32 - 1), "number of images is 4294967295, expected 4"),
    "-2**31 images": (IMAGES, images(2**31), "number of images is 2147483648, expected 4"),
    "a count the wrong way round": (IMAGES, images(4 << 24), "images is 67108864, expected 4"),
    "no rows in an image": (IMAGES, images(4, rows=0), "rows is 0, expected 28"),
    "fewer rows": (IMAGES, images(4, rows=27), "rows is 27, expected 28"),
    "more rows": (IMAGES, images(4, rows=29), "rows is 29, expected 28"),
    "-1 rows": (IMAGES, images(4, rows=2**32 - 1), "rows is 4294967295, expected 28"),
    "as many pixels": (IMAGES, images(4, 14, 56), "rows is 14, expected 28"),
    "no columns in an image": (IMAGES, images(4, columns=0), "columns is 0, expected 28"),
    "more columns": (IMAGES, images(4, columns=32), "columns is 32, expected 28"),
    "-1 columns": (IMAGES, images(4, columns=2**32 - 1), "columns is 4294967295, expected 28"),
    "no pixels": (IMAGES, PLAIN[:16], "data has 0 bytes, expected 3136"),
    "one pixel": (IMAGES, PLAIN[:17], "data has 1 bytes, expected 3136"),
    "an image less": (IMAGES, PLAIN[:-784], "data has 2352 bytes, expected 3136"),
    "a pixel less": (IMAGES, PLAIN[:-1], "data has 3135 bytes, expected 3136"),
    "a pixel more": (IMAGES, PLAIN + b"0", "data has more bytes, expected 3136"),
    "twice the file": (IMAGES, PLAIN + PLAIN, "data has more bytes, expected 3136"),
    "no labels": (LABELS, labels(0, b""), "number of labels is 0, expected 4"),
    "fewer labels than images": (LABELS, labels(3, bytes(3)), "number of labels is 3, expected 4"),
    "more labels than images": (LABELS, labels(5, bytes(5)), "number of labels is 5, expected 4"),
    "-1 labels": (LABELS, labels(2**32 - 1, bytes(4)), "number of labels is 4294967295"),
    "a label less": (LABELS, FOUR[:-1], "data has 3 bytes, expected 4"),
    "a label more": (LABELS, FOUR + b"\0", "data has more bytes, expected 4"),
    "a label of 10": (LABELS, labels(4, bytes([0, 1, 10, 2])), "label 2 is 10, expected 0 to 9"),
    "a label of 255": (LABELS, labels(4, bytes([0, 1, 2, 255])), "label 3 is 255, expected 0"),
    "labels as digits": (LABELS, labels(4, b"0123"), "label 0 is 48, expected 0 to 9"),
    "a page": (IMAGES, b"<!doctype html><p>404: Not Found", "magic number is 0x3c21646f"),
    "a pointer": (IMAGES, b"version https://git-lfs.github.com/", "magic number is 0x76657273"),
    "nothing packed": (f"{LABELS}.gz", b"", "header has 0 bytes, expected 8"),
    "gzip's magic alone": (f"{LABELS}.gz", STORED[:2], "gzip data: Compressed file ended"),
    "half of gzip's header": (f"{LABELS}.gz", STORED[:5], "gzip data: Compressed file ended"),
    "gzip's header alone": (f"{LABELS}.gz", STORED[:10], "gzip data: Compressed file ended"),
    "packed and cut in the header": (f"{LABELS}.gz", STORED[:19], "gzip data: Compressed file"),
    "packed and cut in the data": (f"{IMAGES}.gz", PACKED[:-50], "gzip data: Compressed file"),
    "no checksum": (f"{LABELS}.gz", STORED[:-8], "gzip data: Compressed file ended"),
    "no packed size": (f"{LABELS}.gz", STORED[:-4], "gzip data: Compressed file ended"),
    "a bad checksum": (f"{LABELS}.gz", flip(STORED, -8 % len(STORED)), "gzip data: CRC check fai"),
    "a bad packed size": (f"{LABELS}.gz", flip(STORED, len(STORED) - 1), "gzip data: Incorrect le"),
    "a bad byte, packed": (f"{LABELS}.gz", flip(STORED, -9 % len(STORED)), "gzip data: CRC check"),
    "a bad block": (f"{LABELS}.gz", STORED[:10] + b"\xff" * 20, "gzip data: .*invalid block type"),
    "a bad method": (f"{LABELS}.gz", flip(STORED, 2), "gzip data: Unknown compression method"),
    "bytes behind gzip": (f"{LABELS}.gz", STORED + b"more", "gzip data: Not a gzipped file"),
    "a member more": (f"{LABELS}.gz", STORED + STORED, "data has more bytes, expected 4"),
    "packed twice": (f"{LABELS}.gz", gzip.compress(STORED), "magic number is 0x1f8b0800"),
    "a packed lie": (f"{IMAGES}.gz", HEADER, "number of images is 4294967295, expected 4"),
    "a packed header alone": (f"{IMAGES}.gz", gzip.compress(PLAIN[:16]), "data has 0 bytes"),
    "an empty gzip": (f"{IMAGES}.gz", gzip.compress(b""), "header has 0 bytes, expected 16"),
    "a pixel less, packed": (f"{IMAGES}.gz", gzip.compress(PLAIN[:-1]), "data has 3135 bytes"),
    "a pixel more, packed": (f"{IMAGES}.gz", gzip.compress(PLAIN + b"0"), "data has more bytes"),
    "not gzip": (f"{IMAGES}.gz", b"PK\x03\x04" + PLAIN, "magic number is 0x504b0304, expected"),
    "raw deflate": (f"{LABELS}.gz", zlib.compress(FOUR), "magic number is 0x789c"),
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("part", ["train", "t10k"])
def test_a_damaged_idx_file_is_named_with_what_is_wrong_in_it(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, part: str, damage: str
) -> None:
    monkeypatch.setattr(datasets, "TEST_IMAGES", 4)
    for kind in (IMAGES, LABELS):
        (tiny / kind.replace("train", "t10k")).write_bytes((tiny / kind).read_bytes())
    name, content, message = DAMAGED[damage]
    path = tiny / name.replace("train", part)
    path.with_suffix("").unlink()
    path.write_bytes(content)
    with pytest.raises(gemmc.DataError, match=f"^fashion_mnist: {path}: .*{message}") as caught:
        fashion_mnist(tiny)
    assert "\n" not in str(caught.value)


def test_there_are_at_least_forty_kinds_of_damage() -> None:
    assert len({(name, content) for name, content, _ in DAMAGED.values()}) >= 40


def test_training_and_test_files_that_changed_places_are_named(tiny: Path) -> None:
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        train, test, other = tiny / f"train-{kind}", tiny / f"t10k-{kind}", tiny / "other"
        train.rename(other)
        test.rename(train)
        other.rename(test)
    with pytest.raises(gemmc.DataError, match="train-labels.*number of labels is 3, expected 4"):
        fashion_mnist(tiny)


def test_images_and_labels_that_changed_places_are_named(tiny: Path) -> None:
    (tiny / IMAGES).rename(tiny / "other")
    (tiny / LABELS).rename(tiny / IMAGES)
    (tiny / "other").rename(tiny / LABELS)
    with pytest.raises(gemmc.DataError, match=rf"{LABELS}: magic number is .* \(images\)"):
        fashion_mnist(tiny)


@pytest.mark.parametrize("content", [PLAIN, PACKED, FOUR, STORED], ids=len)
def test_a_file_that_ends_anywhere_is_an_error(tmp_path: Path, content: bytes) -> None:
    path, read = tmp_path / "file", reader(content)
    for nbytes in range(0, len(content), 1 if len(content) < 100 else 97):
        path.write_bytes(content[:nbytes])
        with pytest.raises(gemmc.DataError, match=f"^fashion_mnist: {path}"):
            read(path)


def test_one_changed_byte_of_a_packed_file_is_an_error_or_changes_nothing(tmp_path: Path) -> None:
    path, read = tmp_path / "file", reader(STORED)
    harmless = set()
    for at in range(len(STORED)):
        path.write_bytes(flip(STORED, at))
        try:
            assert read(path).tobytes() == FOUR[8:]
            harmless.add(at)
        except gemmc.DataError as error:
            assert str(error).startswith(f"fashion_mnist: {path}")
    assert harmless == {4, 5, 6, 7, 8, 9}  # its time, how hard it tried, and its system


def reader(content: bytes) -> Callable[[Path], idx.Bytes]:
    if content in (PLAIN, PACKED):
        return lambda path: idx.read(path, 0x0803, {"images": 4, "rows": 28, "columns": 28})
    return lambda path: idx.read(path, 0x0801, {"labels": 4})


@pytest.mark.parametrize("name", [IMAGES, LABELS, f"{IMAGES}.gz", f"{LABELS}.gz"])
@pytest.mark.parametrize("kind", ["folder", "link to nothing", "pipe"])
def test_what_is_not_a_file_is_named_and_not_waited_for(tiny: Path, name: str, kind: str) -> None:
    path = tiny / name
    path.with_suffix("").unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "link to nothing":
        path.symlink_to(tiny / "nowhere")
    elif not hasattr(os, "mkfifo"):
        pytest.skip("no pipes with names here")
    else:
        os.mkfifo(path)
    with pytest.raises(gemmc.DataError, match=f"{path} is not a file"):
        fashion_mnist(tiny)


not_root = pytest.mark.skipif(
    getattr(os, "geteuid", lambda: 0)() == 0, reason="root may read everything"
)


@not_root
def test_a_file_that_may_not_be_read_is_named(tiny: Path) -> None:
    (tiny / IMAGES).chmod(0)
    with pytest.raises(gemmc.DataError, match=f"{IMAGES} cannot be read: Permission denied"):
        fashion_mnist(tiny)


@not_root
@pytest.mark.parametrize("below", [False, True])
def test_a_folder_that_may_not_be_looked_into_is_named(tiny: Path, below: bool) -> None:
    tiny.chmod(0)
    folder = tiny / "folder" if below else tiny
    with pytest.raises(gemmc.DataError, match=f"^fashion_mnist: root.*{folder}"):
        fashion_mnist(folder)
    tiny.chmod(0o700)


def test_a_file_on_a_failing_disk_is_named(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(data: idx.Bytes, stream: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(idx, "_fill", fail)
    with pytest.raises(gemmc.DataError, match=f"{LABELS} cannot be read: Input/output error"):
        fashion_mnist(tiny)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(images(2**32 - 1), id="a lie"),
        pytest.param(gzip.compress(images(2**32 - 1)), id="a packed lie"),
        pytest.param(images(60_000), id="data missing"),
        pytest.param(images(60_000, columns=2**31), id="huge images"),
    ],
)
def test_no_memory_is_taken_for_a_file_that_lies_about_its_size(
    tmp_path: Path, content: bytes
) -> None:
    path, dims = tmp_path / "file", {"number of images": 60_000, "rows": 28, "columns": 28}
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(gemmc.DataError):
            idx.read(path, 0x0803, dims)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000  # buffers of files and of gzip; the images would be 47 MB


def test_no_more_than_expected_is_unpacked_from_a_bomb(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(images(4, pixels=bytes(100_000_000)), 1))
    tracemalloc.start()
    try:
        with pytest.raises(gemmc.DataError, match="data has more bytes, expected 3136"):
            reader(PLAIN)(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_a_file_is_held_in_memory_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(images(10_000, pixels=bytes(7_840_000)), 1))
    tracemalloc.start()
    try:
        data = idx.read(path, 0x0803, {"images": 10_000, "rows": 28, "columns": 28})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert data.dtype == np.uint8
    assert peak < 7_840_000 + 4 * idx.CHUNK  # a chunk and GzipFile's copies of it
