"""Downloads against a server of our own: good, resumed, truncated, wrong, missing, slow; and the command line."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlzoo.assets import Asset
from rlzoo.cli import assets as command
from rlzoo.config.registry import Registry
from rlzoo.errors import ConfigError, DataError, PluginError
from rlzoo.files import assets
from rlzoo.plugin import Options, RewardSpec

CONTENT = bytes(range(256)) * 4096  # 1 MiB


@dataclass
class Server:
    """What to do with each request; `requests` records (path, Range)."""

    url: str = ""
    content: bytes = CONTENT
    knows_ranges: bool = True
    ignores_start: bool = False
    """Answer every request for a range with one from the beginning, and say so."""
    cut_after: int | None = None
    """Break every connection after so many bytes of body, though a full length was promised."""
    stall_seconds: float = 0.0
    requests: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.requests.append((self.path, wanted))
            if self.path == "/moved/weights.pt":
                self.send_response(302)
                self.send_header("Location", "/weights.pt")
                self.end_headers()
                return
            if self.path != "/weights.pt":
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and state.knows_ranges else 0
            partial, start = bool(start), 0 if state.ignores_start else start
            body = state.content[start:]
            self.send_response(206 if partial else 200)
            if partial:
                self.send_header("Content-Range", f"bytes {start}-{len(state.content) - 1}/{len(state.content)}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.cut_after])
            self.wfile.flush()
            if state.stall_seconds:
                time.sleep(state.stall_seconds)
            if state.cut_after is not None:
                self.connection.close()

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def asset(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asset:
    monkeypatch.setenv("RLZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RLZOO_OFFLINE", raising=False)
    return Asset(
        name="toy",
        url=f"{server.url}/weights.pt",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size=len(CONTENT),
        licence="CC BY-NC 4.0",
        commercial_use=False,
        source="this test",
    )


def part(asset: Asset) -> Path:
    return asset.path.with_name("weights.pt.part")


def test_a_good_download_arrives_whole_once(asset: Asset, server: Server) -> None:
    seen: list[tuple[int, int]] = []
    path = assets.fetch(asset, progress=lambda done, size: seen.append((done, size)))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert not part(asset).exists()
    assert assets.fetch(asset) == path == assets.cached(asset) == assets.obtain(asset)
    assert len(server.requests) == 1
    assets.fetch(asset, force=True)
    assert len(server.requests) == 2


def test_redirects_are_followed(asset: Asset, server: Server) -> None:
    moved = replace(asset, url=f"{server.url}/moved/weights.pt")
    assert assets.fetch(moved).read_bytes() == CONTENT


def test_a_partial_file_is_continued(asset: Asset, server: Server) -> None:
    part(asset).parent.mkdir(parents=True)
    part(asset).write_bytes(CONTENT[:300_000])
    assert assets.fetch(asset).read_bytes() == CONTENT
    assert server.requests == [("/weights.pt", "bytes=300000-")]


def test_a_server_without_ranges_starts_over(asset: Asset, server: Server) -> None:
    server.knows_ranges = False
    part(asset).parent.mkdir(parents=True)
    part(asset).write_bytes(b"x" * 300_000)
    assert assets.fetch(asset).read_bytes() == CONTENT


def test_a_range_that_begins_elsewhere_is_not_appended(asset: Asset, server: Server) -> None:
    asset.path.parent.mkdir(parents=True, exist_ok=True)
    asset.path.with_name(asset.path.name + ".part").write_bytes(CONTENT[:1000])
    server.ignores_start = True
    assert assets.fetch(asset).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == ["bytes=1000-"]


def test_a_file_of_another_size_is_not_taken_for_the_asset(asset: Asset) -> None:
    asset.path.parent.mkdir(parents=True, exist_ok=True)
    asset.path.write_bytes(CONTENT[:-1])
    assert assets.cached(asset) is None
    asset.path.write_bytes(CONTENT)
    assert assets.cached(asset) == asset.path


def test_broken_connections_are_taken_up_again(asset: Asset, server: Server) -> None:
    server.cut_after = 400_000
    assert assets.fetch(asset).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, "bytes=400000-", "bytes=800000-"]


def test_a_truncated_file_is_never_taken_for_whole(asset: Asset, server: Server) -> None:
    server.cut_after = 0
    part(asset).parent.mkdir(parents=True)
    part(asset).write_bytes(CONTENT[:500])
    with pytest.raises(DataError, match=r"stopped at 500 of 1,048,576 bytes") as error:
        assets.fetch(asset)
    assert "continues where it stopped" in error.value.hint
    assert not asset.path.exists()
    server.cut_after = None
    assert assets.fetch(asset).read_bytes() == CONTENT
    assert server.requests[-1][1] == "bytes=500-"


def test_a_file_that_ends_early_on_the_server(asset: Asset, server: Server) -> None:
    server.content = CONTENT[:1000]
    with pytest.raises(DataError, match="1,000 of 1,048,576"):
        assets.fetch(asset)
    assert assets.cached(asset) is None


def test_a_file_that_is_longer_than_announced(asset: Asset, server: Server) -> None:
    server.content = CONTENT + b"more"
    with pytest.raises(DataError, match="expected 1,048,576"):
        assets.fetch(asset)
    assert not asset.path.exists()
    assert not part(asset).exists()


def test_the_wrong_content_is_deleted(asset: Asset, server: Server) -> None:
    server.content = b"y" + CONTENT[1:]
    with pytest.raises(DataError, match="has SHA-256") as error:
        assets.fetch(asset)
    assert asset.sha256 in error.value.message
    assert not asset.path.exists()
    assert not part(asset).exists()


def test_a_missing_page(asset: Asset, server: Server) -> None:
    with pytest.raises(DataError, match="answers 404") as error:
        assets.fetch(replace(asset, url=f"{server.url}/gone.pt"))
    assert asset.sha256 in error.value.hint


def test_a_silent_server_is_given_up_and_what_came_is_kept(asset: Asset, server: Server) -> None:
    server.cut_after, server.stall_seconds = 0, 0.5
    part(asset).parent.mkdir(parents=True)
    part(asset).write_bytes(CONTENT[:2000])
    started = time.monotonic()
    with pytest.raises(DataError, match=r"stopped at 2,000 of .*ReadTimeout"):
        assets.fetch(asset, timeout_seconds=0.1)
    assert time.monotonic() - started < 5
    assert part(asset).read_bytes() == CONTENT[:2000]


def test_a_slow_server_is_waited_for(asset: Asset, server: Server) -> None:
    server.cut_after, server.stall_seconds = 400_000, 0.2
    assert assets.fetch(asset, timeout_seconds=5).read_bytes() == CONTENT


def test_nobody_answers(asset: Asset) -> None:
    with pytest.raises(DataError, match=r"ConnectError"):
        assets.fetch(replace(asset, url="http://127.0.0.1:9/weights.pt"), timeout_seconds=1)


@pytest.mark.parametrize("value", ["1", "true"])
def test_offline_uses_no_network(asset: Asset, server: Server, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("RLZOO_OFFLINE", value)
    with pytest.raises(DataError, match="downloads are switched off"):
        assets.obtain(asset)
    assert server.requests == []


def test_obtain_prefers_the_checkpoint_then_the_cache(asset: Asset, tmp_path: Path) -> None:
    mine = tmp_path / "mine.pt"
    mine.write_bytes(b"mine")
    assert assets.obtain(asset, mine) == mine
    with pytest.raises(DataError, match="does not exist"):
        assets.obtain(asset, tmp_path / "absent.pt")


def test_obtain_says_what_it_fetches_and_on_which_terms(asset: Asset, capsys: pytest.CaptureFixture[str]) -> None:
    assets.obtain(asset)
    said = capsys.readouterr().err
    for fact in (asset.url, asset.sha256, "1.0 MB", "NO COMMERCIAL USE", str(asset.path)):
        assert fact in said


def test_a_directory_that_cannot_be_written(asset: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RLZOO_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="cannot write") as error:
        assets.fetch(asset)
    assert "RLZOO_CACHE" in error.value.hint


def test_a_full_disk(asset: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(assets, "_request", full)
    with pytest.raises(DataError, match="No space left on device"):
        assets.fetch(asset)


def test_verify_notices_a_change_after_arrival(asset: Asset) -> None:
    path = assets.fetch(asset)
    assert assets.verify(asset) == path
    content = bytearray(CONTENT)
    content[7] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="SHA-256"):
        assets.verify(asset)
    path.write_bytes(CONTENT[:9])
    with pytest.raises(DataError, match="has 9 bytes"):
        assets.verify(asset)


@pytest.fixture
def registry(asset: Asset, monkeypatch: pytest.MonkeyPatch) -> Registry:
    found = Registry()
    spec = RewardSpec(name="toy-reward", summary="", target="a:b", options=Options, assets=(asset,))
    found.specs["reward"]["toy-reward"] = spec
    monkeypatch.setattr("rlzoo.config.registry.discover", lambda: found)
    return found


@pytest.mark.usefixtures("registry")
def test_the_commands(asset: Asset, server: Server) -> None:
    run = CliRunner().invoke
    listed = run(command.app, ["list"]).output
    for fact in ("toy", "1.0 MB", "not fetched", "toy-reward", "NO COMMERCIAL USE", "this test"):
        assert fact in listed
    (row,) = json.loads(run(command.app, ["list", "--json"]).output)
    assert (row["sha256"], row["url"], row["cached"]) == (asset.sha256, asset.url, False)
    assert isinstance(run(command.app, ["path", "toy"]).exception, DataError)
    assert isinstance(run(command.app, ["pull", "toy", "--offline"]).exception, DataError)
    assert server.requests == []
    assert run(command.app, ["pull", "toy"]).exit_code == 0
    assert run(command.app, ["path", "toy"]).stdout.strip() == str(asset.path)
    assert "good" in run(command.app, ["verify"]).output
    asset.path.write_bytes(b"0" * len(CONTENT))
    bad = run(command.app, ["verify", "toy"])
    assert "BAD" in bad.output
    assert isinstance(bad.exception, DataError)
    assert run(command.app, ["pull", "toy", "--force"]).exit_code == 0
    assert asset.path.read_bytes() == CONTENT


@pytest.mark.usefixtures("registry")
def test_a_misspelt_asset() -> None:
    error = CliRunner().invoke(command.app, ["pull", "toi"]).exception
    assert isinstance(error, ConfigError)
    assert "'toy'" in error.hint


def test_one_name_for_two_files(registry: Registry, asset: Asset) -> None:
    other = RewardSpec(name="z", summary="", target="a:b", options=Options, assets=(replace(asset, size=1),))
    registry.specs["reward"]["z"] = other
    with pytest.raises(PluginError, match="different files under the name 'toy'"):
        command.announced(registry)
