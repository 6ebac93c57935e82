"""Downloads of Fashion-MNIST from a server of our own: interrupted, refused, damaged, contested."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import random
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import gemmc
from gemmc.frontend import datasets, download
from gemmc.ir import environment

IMAGES = "train-images-idx3-ubyte"
FILE = f"{IMAGES}.gz"


def idx_files() -> dict[str, bytes]:
    """Good files, packed, of 40 training and 30 test images: noise, so that they stay large."""
    noise, files = random.Random(0), {}
    for part, count in [("train", 40), ("t10k", 30)]:
        images = struct.pack(">4I", 0x0803, count, 28, 28) + noise.randbytes(count * 28 * 28)
        labels = struct.pack(">2I", 0x0801, count) + bytes(i % 10 for i in range(count))
        files[f"{part}-images-idx3-ubyte.gz"] = gzip.compress(images, mtime=0)
        files[f"{part}-labels-idx1-ubyte.gz"] = gzip.compress(labels, mtime=0)
    return files


GOOD = idx_files()
SIZE = len(GOOD[FILE])


@dataclass
class Site:
    """What a server has, how it behaves, and what it was asked: (file, Range)."""

    files: dict[str, bytes] = field(default_factory=lambda: dict(GOOD))
    ranges: str = "yes"  # or "no": the whole file; "416": refused; "other": another part
    says_length: bool = True
    cut: list[int] = field(default_factory=list)  # the next answers end after so many bytes
    pause: threading.Event | None = None  # waited for after half of a file
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""

    def answer(self, asked: BaseHTTPRequestHandler) -> None:
        name, wanted = asked.path.lstrip("/"), asked.headers["Range"]
        self.asked.append((name, wanted))
        if name not in self.files:
            return asked.send_error(404)
        body, total = self.files[name], len(self.files[name])
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if start and self.ranges == "416":
            return asked.send_error(416)
        start = {"yes": start, "no": 0, "other": start // 2}[self.ranges] if start else 0
        asked.send_response(206 if start else 200)
        if start:
            asked.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if self.says_length:
            asked.send_header("Content-Length", str(total - start))
        asked.end_headers()
        self._send(asked, body[start : start + self.cut.pop(0)] if self.cut else body[start:])

    def _send(self, asked: BaseHTTPRequestHandler, body: bytes) -> None:
        half = len(body) // 2 if self.pause else len(body)
        asked.wfile.write(body[:half])
        if self.pause:
            self.pause.wait(20)
            asked.wfile.write(body[half:])


def serve(site: Site) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(ConnectionError):  # the client has seen enough
                site.answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_port}/"
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    return server


@pytest.fixture
def sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Site]]:
    """Two mirrors with the files, and a machine that has none of them."""
    monkeypatch.setattr(datasets, "TRAIN_IMAGES", 40)
    monkeypatch.setattr(datasets, "TEST_IMAGES", 30)
    monkeypatch.setattr(datasets, "DEBIAN_FOLDER", tmp_path / "debian")
    monkeypatch.setattr(environment, "CACHES", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("GEMMC_DATA", raising=False)
    files = {name[:-3]: packed(content) for name, content in GOOD.items()}
    monkeypatch.setattr(download, "FILES", files)
    sites = [Site(), Site()]
    servers = [serve(site) for site in sites]
    monkeypatch.setattr(download, "MIRRORS", tuple(site.url for site in sites))
    yield sites
    for site, server in zip(sites, servers, strict=True):
        if site.pause:
            site.pause.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def site(sites: list[Site], monkeypatch: pytest.MonkeyPatch) -> Site:
    """The only mirror."""
    monkeypatch.setattr(download, "MIRRORS", (sites[0].url,))
    return sites[0]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Where downloads go; it has all files but one."""
    cache = tmp_path / "gemmc" / "fashion-mnist"
    cache.mkdir(parents=True)
    for name in GOOD.keys() - {FILE}:
        (cache / name).write_bytes(GOOD[name])
    return cache


def packed(content: bytes) -> download.Packed:
    return download.Packed(len(content), hashlib.sha256(content).hexdigest())


def load() -> None:
    """Loads the set, and looks whether it is the one of the mirrors."""
    X = gemmc.datasets.fashion_mnist()[0]
    assert X.tobytes() == gzip.decompress(GOOD[FILE])[16:]


def left(cache: Path) -> dict[str, bytes]:
    """What lies in the cache beside the three files that were there before."""
    paths = [path for path in cache.iterdir() if path.name not in GOOD.keys() - {FILE}]
    return {path.name: path.read_bytes() for path in paths if path.name != ".lock"}


def test_the_four_files_are_downloaded_once_and_nothing_else_is_left(
    site: Site, tmp_path: Path
) -> None:
    load()
    load()
    assert sorted(site.asked) == sorted((name, None) for name in GOOD)
    assert {path.name for path in (tmp_path / "gemmc" / "fashion-mnist").iterdir()} == {
        *GOOD,
        ".lock",
    }


def test_only_what_is_missing_is_downloaded_and_unpacked_files_count(
    site: Site, cache: Path
) -> None:
    labels = cache / "t10k-labels-idx1-ubyte.gz"
    labels.with_suffix("").write_bytes(gzip.decompress(labels.read_bytes()))
    labels.unlink()
    load()
    assert site.asked == [(FILE, None)]
    assert left(cache) == {
        FILE: GOOD[FILE],
        "t10k-labels-idx1-ubyte": gzip.decompress(GOOD[labels.name]),
    }


def test_nothing_is_downloaded_for_a_named_folder_or_the_subset(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gemmc.datasets.fashion_mnist(subset=True)
    with pytest.raises(gemmc.DataError, match="root: no file"):
        gemmc.datasets.fashion_mnist(tmp_path)
    monkeypatch.setenv("GEMMC_DATA", str(tmp_path))
    with pytest.raises(gemmc.DataError, match="GEMMC_DATA: no file"):
        gemmc.datasets.fashion_mnist()
    assert site.asked == []


def test_an_interrupted_download_goes_on_where_it_stopped(site: Site, cache: Path) -> None:
    site.cut = [1000, 500]
    for there in (1000, 1500):
        with pytest.raises(gemmc.DataError, match=f"{FILE}: ended after {there} of {SIZE} bytes"):
            load()
        assert left(cache) == {f"{FILE}.part": GOOD[FILE][:there]}
    load()
    assert site.asked == [(FILE, None), (FILE, "bytes=1000-"), (FILE, "bytes=1500-")]
    assert left(cache) == {FILE: GOOD[FILE]}


@pytest.mark.parametrize("ranges, requests", [("no", 1), ("416", 2), ("other", 2)])
def test_a_server_that_cannot_go_on_begins_again(
    site: Site, cache: Path, ranges: str, requests: int
) -> None:
    (cache / f"{FILE}.part").write_bytes(GOOD[FILE][:1000])
    site.ranges = ranges
    load()
    assert site.asked == [(FILE, "bytes=1000-"), (FILE, None)][:requests]
    assert left(cache) == {FILE: GOOD[FILE]}


# What it is: its content, and what is asked for then.
BAD_PARTS: dict[str, tuple[bytes, list[str | None]]] = {
    "another file's": (b"x" * 1000, ["bytes=1000-", None]),
    "longer than the file": (GOOD[FILE] + b"x", [None]),
    "of the right size": (b"x" * SIZE, [None]),
    "empty": (b"", [None]),
    "whole": (GOOD[FILE], []),
    "a byte less than whole": (GOOD[FILE][:-1], [f"bytes={SIZE - 1}-"]),
}


@pytest.mark.parametrize("part", BAD_PARTS)
def test_whatever_part_is_found_the_file_is_right(site: Site, cache: Path, part: str) -> None:
    content, requests = BAD_PARTS[part]
    (cache / f"{FILE}.part").write_bytes(content)
    load()
    assert site.asked == [(FILE, wanted) for wanted in requests]
    assert left(cache) == {FILE: GOOD[FILE]}


def test_the_second_mirror_goes_on_where_the_first_stopped(sites: list[Site], cache: Path) -> None:
    sites[0].cut = [1000]
    load()
    assert (sites[0].asked, sites[1].asked) == ([(FILE, None)], [(FILE, "bytes=1000-")])
    assert left(cache) == {FILE: GOOD[FILE]}


WRONG = {
    "another file": GOOD[FILE][:-1] + bytes([GOOD[FILE][-1] ^ 1]),
    "a page": b"<!doctype html><p>Please log in to this network",
    "a longer file": GOOD[FILE] + b"x",
    "an empty file": b"",
}


@pytest.mark.parametrize("says_length", [True, False])
@pytest.mark.parametrize("wrong", WRONG)
def test_the_second_mirror_has_the_file_if_the_first_has_another(
    sites: list[Site], cache: Path, wrong: str, says_length: bool
) -> None:
    sites[0].files[FILE], sites[0].says_length = WRONG[wrong], says_length
    load()
    assert left(cache) == {FILE: GOOD[FILE]}


def test_a_wrong_sum_is_named_and_nothing_of_the_file_is_kept(
    sites: list[Site], cache: Path
) -> None:
    for site in sites:
        site.files[FILE] = WRONG["another file"]
    found, expected = (hashlib.sha256(b).hexdigest() for b in (WRONG["another file"], GOOD[FILE]))
    with pytest.raises(gemmc.DataError) as caught:
        load()
    for site in sites:
        assert f"{site.url}{FILE}: SHA-256 is {found}, expected {expected}" in str(caught.value)
    assert left(cache) == {}


@pytest.mark.parametrize("wrong", ["a page", "a longer file"])
@pytest.mark.parametrize("ranges", ["yes", "no"])
def test_a_file_of_another_length_is_refused_before_the_part_is_touched(
    site: Site, cache: Path, wrong: str, ranges: str
) -> None:
    (cache / f"{FILE}.part").write_bytes(GOOD[FILE][:40])
    site.files[FILE], site.ranges = WRONG[wrong], ranges
    message = f"{FILE}: has {len(WRONG[wrong])} bytes, expected {SIZE}"
    with pytest.raises(gemmc.DataError, match=message):
        load()
    assert left(cache) == {f"{FILE}.part": GOOD[FILE][:40]}


def test_a_file_without_a_length_is_not_read_beyond_the_expected(site: Site, cache: Path) -> None:
    site.files[FILE], site.says_length = GOOD[FILE] * 20, False
    with pytest.raises(gemmc.DataError, match=f"has more than the expected {SIZE} bytes"):
        load()
    assert sum(map(len, left(cache).values())) <= SIZE


def test_without_a_network_the_message_says_what_was_tried_and_what_helps(
    sites: list[Site], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del sites[0].files[FILE]
    nobody = "http://127.0.0.1:1/"  # a port that is reserved, and that nothing listens at
    monkeypatch.setattr(download, "MIRRORS", (sites[0].url, nobody))
    with pytest.raises(gemmc.DataError) as caught:
        load()
    message = str(caught.value)
    assert message.startswith(f"fashion_mnist: cannot download {cache / FILE}: tried ")
    assert f"{sites[0].url}{FILE}: HTTP Error 404: Not Found" in message
    assert f"{nobody}{FILE}: " in message
    for help in ("by hand", "GEMMC_DATA", "dataset-fashion-mnist", "subset=True"):
        assert help in message


def test_a_server_that_falls_silent_is_left(
    site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(download, "CHUNK", 1000)
    site.pause = threading.Event()
    with pytest.raises(gemmc.DataError, match=f"{FILE}: .*timed out"):
        load()
    part = left(cache)[f"{FILE}.part"]
    assert part == GOOD[FILE][: SIZE // 2 // 1000 * 1000]  # of whole chunks


@pytest.mark.parametrize("blocked", ["gemmc", "gemmc/fashion-mnist"])
def test_a_cache_folder_that_cannot_be_made_is_named(
    site: Site, tmp_path: Path, blocked: str
) -> None:
    (tmp_path / blocked).parent.mkdir(exist_ok=True)
    (tmp_path / blocked).write_bytes(b"a file")
    with pytest.raises(gemmc.DataError, match="cannot download to .*gemmc.*GEMMC_DATA"):
        load()


def test_a_download_shows_a_bar_on_a_terminal_only(
    site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = {}
    for terminal in (False, True):
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda terminal=terminal: terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        load()
        shown[terminal] = stream.getvalue()
        (cache / FILE).unlink()
    assert shown[False] == ""
    assert FILE in shown[True] and "100%" in shown[True]


def process(site: Site, folder: Path) -> subprocess.Popen[bytes]:
    """Another Python that completes `folder` from `site`."""
    code = f"""
from pathlib import Path
from gemmc.frontend import download
from gemmc.frontend.download import Packed
download.MIRRORS, download.CHUNK = [{site.url!r}], 1000
download.FILES = {download.FILES!r}
download.complete(Path({str(folder)!r}))
"""
    return subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent)


def test_processes_that_download_at_once_download_each_file_once(
    site: Site, tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "folder"
    processes = [process(site, folder) for _ in range(3)]
    assert [p.wait(timeout=60) for p in processes] == [0, 0, 0]
    assert sorted(site.asked) == sorted((name, None) for name in GOOD)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {**GOOD, ".lock": b""}


def test_threads_that_load_at_once_download_each_file_once(site: Site, cache: Path) -> None:
    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert site.asked == [(FILE, None)]
    assert left(cache) == {FILE: GOOD[FILE]}


def test_a_killed_process_leaves_a_part_that_the_next_one_goes_on_with(
    site: Site, cache: Path
) -> None:
    site.pause = threading.Event()
    victim, part = process(site, cache), cache / f"{FILE}.part"
    for _ in range(3000):  # half a minute
        if part.exists() and part.stat().st_size:
            break
        time.sleep(0.01)
    victim.kill()
    victim.wait(timeout=60)
    there = part.stat().st_size
    assert 0 < there < SIZE
    site.pause.set()
    load()
    assert site.asked[1:] == [(FILE, f"bytes={there}-")]
    assert left(cache) == {FILE: GOOD[FILE]}


# When the original files were packed, and their MD5.
# Source: github.com/zalandoresearch/fashion-mnist, README.md; the times are in the files' headers.
ORIGINALS = {
    "train-images-idx3-ubyte": (1504176606, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    "train-labels-idx1-ubyte": (1504176606, "25c81989df183df01b3e8a0aad5dffbe"),
    "t10k-images-idx3-ubyte": (1504176627, "bef4ecab320f06d8554ea6380940ec79"),
    "t10k-labels-idx1-ubyte": (1504176627, "bb300cfdad3c16e7a12a480ee83cd310"),
}


@pytest.mark.skipif(not datasets.DEBIAN_FOLDER.is_dir(), reason="Fashion-MNIST is not installed")
@pytest.mark.parametrize("name", ORIGINALS)
def test_the_sums_are_those_of_the_files_that_were_published(name: str) -> None:
    """Debian's files are the published ones without the name and the time in gzip's header."""
    seconds, md5 = ORIGINALS[name]
    header = b"\x1f\x8b\x08\x08" + struct.pack("<IBB", seconds, 0, 3) + name.encode() + b"\0"
    original = header + (datasets.DEBIAN_FOLDER / f"{name}.gz").read_bytes()[10:]
    assert hashlib.md5(original).hexdigest() == md5
    assert packed(original) == download.FILES[name]
