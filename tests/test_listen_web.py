"""The server of a listening test: many raters at once, a crash, hostile input, a real browser."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from rlzoo.cli import listen as cli
from rlzoo.errors import ConfigError, RlzooError
from rlzoo.listen import sources
from rlzoo.listen.prepare import prepare
from rlzoo.listen.report import agreement
from rlzoo.listen.serve import addresses, bind, is_loopback, serve
from rlzoo.listen.study import Settings, Study

pytest.importorskip("starlette", reason="extra `listen` is not installed")
pytest.importorskip("uvicorn", reason="extra `listen` is not installed")

RATE = 8000
SERVER = """
import sys
import threading
from pathlib import Path
from rlzoo.listen.serve import bind, serve
from rlzoo.listen.study import Study
listening = bind(None, int(sys.argv[2]))
study = Study.open(Path(sys.argv[1]))
link = f"link  http://127.0.0.1:{listening.getsockname()[1]}/join/{study.join_key}"
serve(study, listening, lambda: print(link, flush=True))
"""
COMMAND = "import sys; from rlzoo.cli.listen import app; app(sys.argv[1:], prog_name='rlzoo listen')"


def make_folders(path: Path, count: int) -> tuple[Path, Path]:
    time_axis = np.arange(int(0.4 * RATE)) / RATE
    for side, pitch in (("plain", 200), ("tuned", 300)):
        (path / side).mkdir(parents=True)
        for number in range(count):
            wave = 0.1 * np.sin(2 * np.pi * (pitch + number) * time_axis)
            soundfile.write(path / side / f"p{number:02}.wav", wave, RATE)
    return path / "plain", path / "tuned"


def make_study(path: Path, count: int, **settings) -> Path:
    prepare(path / "study", *sources.open_sources(make_folders(path, count)), Settings(**settings)).close()
    return path / "study"


class Server:
    """The server in a process of its own."""

    def __init__(self, *arguments: str, code: str = SERVER) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.said = ""
        while not (found := re.search(r"link +(\S+)\n", self.said)):
            line = self.process.stdout.readline()
            assert line, f"the server has stopped: {self.said}"
            self.said += line
        self.link = found[1]
        self.base = self.link.split("/join/")[0]
        self.port = int(self.base.rsplit(":", 1)[1])

    def stop(self, how: int = signal.SIGINT) -> str:
        self.process.send_signal(how)
        rest, _ = self.process.communicate(timeout=60)
        return self.said + rest


@pytest.fixture
def serving() -> Iterator:
    running: list[Server] = []

    def start(*arguments: str, code: str = SERVER) -> Server:
        running.append(Server(*arguments, code=code))
        return running[-1]

    yield start
    for server in running:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate()


def persistent(send, deadline: float = 120) -> httpx.Response:
    """Like the page: wait when told to, try again when nobody answers."""
    end = time.monotonic() + deadline
    while True:
        try:
            response = send()
            if response.status_code != 429:
                return response
        except httpx.TransportError:
            if time.monotonic() > end:
                raise
        assert time.monotonic() < end
        time.sleep(0.2)


def trial_of(page: str) -> dict:
    import html

    return json.loads(html.unescape(re.search(r'data-trial="([^"]*)"', page)[1]))


def listen_through(link: str, name: str, acknowledged: list, choose) -> None:
    """One rater from invitation to thanks; notes each answer once the server has acknowledged it."""
    base = link.split("/join/")[0]
    with httpx.Client(base_url=base, timeout=30, follow_redirects=True) as client:
        persistent(lambda: client.post(link, data={"name": name}))
        page = persistent(lambda: client.get("/test"))
        trial = None if page.url.path == "/done" else trial_of(page.text)
        while trial is not None:
            for side in ("first", "second"):
                sound = persistent(lambda address=trial[side]: client.get(address))
                assert sound.status_code == 200
                assert sound.content[:4] == b"RIFF"
            choice = choose(trial)
            body = {"trial": trial["id"], "choice": choice, "seconds": 1.5, "plays": 2}
            answer = persistent(lambda body=body: client.post("/answer", json=body))
            assert answer.status_code == 200, answer.text
            acknowledged.append((trial["id"], choice))
            # As if the acknowledgement had been lost.
            assert persistent(lambda body=body: client.post("/answer", json=body)).status_code == 200
            trial = answer.json()["next"]
        assert persistent(lambda: client.get("/")).url.path == "/done"


def recorded(study: Path) -> dict[str, str]:
    connection = sqlite3.connect(study / "listen.sqlite")
    rows = connection.execute("SELECT trial, choice FROM answer").fetchall()
    connection.close()
    assert len({trial for trial, _ in rows}) == len(rows)
    return dict(rows)


def pick(trial: dict) -> str:
    return ("first", "second", "same")[sum(trial["id"].encode()) % 3]


def test_twenty_raters_at_once_lose_nothing_and_count_nothing_twice(tmp_path, serving):
    study = make_study(tmp_path, 20, pairs=20, repeats=0, anchors=0, max_raters=20)
    server = serving(str(study), "0")
    given: list[list] = [[] for _ in range(20)]
    with ThreadPoolExecutor(20) as pool:
        done = [pool.submit(listen_through, server.link, f"rater {n}", given[n], pick) for n in range(20)]
        for future in done:
            future.result()
    expected = dict(answer for answers in given for answer in answers)
    assert len(expected) == 400
    assert recorded(study) == expected
    full = httpx.post(server.link, data={"name": "late"})
    assert full.status_code == 403
    assert "full" in full.text


def test_a_killed_server_loses_no_acknowledged_answer(tmp_path, serving):
    study = make_study(tmp_path, 12, pairs=12, repeats=0, anchors=0)
    server = serving(str(study), "0")
    given: list[list] = [[] for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(listen_through, server.link, f"r{n}", given[n], pick) for n in range(4)]
        while sum(map(len, given)) < 15:
            time.sleep(0.01)
            assert not any(future.done() for future in done)
        server.stop(signal.SIGKILL)
        before = dict(answer for answers in given for answer in list(answers))
        kept = recorded(study)
        assert len(before) < 48
        assert before.items() <= kept.items()
        # The raters go on with the same sessions, whatever they had sent when it died.
        serving(str(study), str(server.port))
        for future in done:
            future.result()
    expected = dict(answer for answers in given for answer in answers)
    assert len(expected) == 48
    assert recorded(study) == expected


# In one process: what the pages accept.


@pytest.fixture
def study(tmp_path) -> Iterator[Study]:
    study = Study.open(make_study(tmp_path, 4, pairs=4, repeats=1, anchors=1))
    yield study
    while _running:
        client, server, thread, listening = _running.pop()
        client.close()
        server.should_exit = True
        thread.join()
        listening.close()
    study.close()


_running: list = []


def client_of(study: Study, **limits) -> httpx.Client:
    """A browser without a session, and a server of its own with limits of its own."""
    import uvicorn

    from rlzoo.listen.web import Limits, create_app

    listening = bind(None, 0)
    server = uvicorn.Server(uvicorn.Config(create_app(study, Limits(**limits)), ws="none", log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    client = httpx.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=30)
    _running.append((client, server, thread, listening))
    return client


def signed_in(study: Study, name: str = "Ann") -> httpx.Client:
    client = client_of(study)
    assert client.post(f"/join/{study.join_key}", data={"name": name}).status_code == 303
    return client


@pytest.mark.parametrize(("halves", "raters", "kills"), [(560, 3, 0), pytest.param(560, 25, 2, marks=pytest.mark.slow)])
def test_half_open_connections_lock_nobody_out(tmp_path, serving, halves, raters, kills):
    """Whoever connects and says nothing, or half a request, makes room for raters; they never wait for two seconds."""
    folder = make_study(tmp_path, 4, pairs=3, repeats=0, anchors=0, max_raters=100)
    server = serving(str(folder), "0")
    stop, waits, acknowledged = threading.Event(), [], []

    def hold() -> list[socket.socket]:
        held = []
        for number in range(halves):
            with contextlib.suppress(OSError):
                held.append(socket.create_connection(("127.0.0.1", server.port), timeout=5))
                held[-1].sendall((b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-", b"POST /answer HTTP/1.1\r\n")[number % 3])
        return held

    def watch() -> None:
        while not stop.is_set():
            started = time.monotonic()
            with contextlib.suppress(httpx.TransportError):  # while it is being killed
                httpx.get(server.base + "/static/style.css", timeout=10).raise_for_status()
                waits.append(time.monotonic() - started)
            stop.wait(0.1)

    held = hold()
    watching = threading.Thread(target=watch)
    watching.start()
    with ThreadPoolExecutor(raters) as pool:
        working = [pool.submit(listen_through, server.link, f"r{i}", acknowledged, pick) for i in range(raters)]
        for _ in range(kills):
            enough = len(acknowledged) + raters
            while len(acknowledged) < enough and not all(one.done() for one in working):
                time.sleep(0.05)
            server.stop(signal.SIGKILL)
            server = serving(str(folder), str(server.port))
            held += hold()
        for one in working:
            one.result()
    stop.set()
    watching.join()
    for connection in held:
        connection.close()
    assert len(acknowledged) == 3 * raters
    assert recorded(folder) == dict(acknowledged)
    print(f"{len(waits)} looks, the longest {max(waits):.2f} s")
    assert max(waits) < (2 if kills else 10)  # without room for them: for as long as the others hold theirs


def test_a_request_that_never_ends_is_ended(tmp_path, serving, monkeypatch):
    server = serving(
        str(make_study(tmp_path, 2, pairs=2, repeats=0, anchors=0)),
        "0",
        code=f"from rlzoo.listen import connections\nconnections.REQUEST_SECONDS = 0.5\n{SERVER}",
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        assert connection.recv(1) == b""


def test_a_locked_file_is_said_within_a_second_and_reading_goes_on(tmp_path, serving):
    folder = make_study(tmp_path, 2, pairs=2, repeats=0, anchors=0)
    server = serving(str(folder), "0")
    with httpx.Client(base_url=server.base, timeout=30, follow_redirects=True) as client:
        client.post(server.link, data={"name": "a"})
        trial = trial_of(client.get("/test").text)
        body = {"trial": trial["id"], "choice": "same", "seconds": 1.0, "plays": 2}
        client.post("/answer", json={**body, "trial": "warm"})
        with closing(sqlite3.connect(folder / "listen.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            started = time.monotonic()
            refused = client.post("/answer", json=body)
            assert time.monotonic() - started < 10  # a second, and some for a busy machine; sqlite's own patience: 30
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            assert trial_of(client.get("/test").text) == trial
            assert client.get(trial["first"]).status_code == 200
            other.execute("ROLLBACK")
        assert client.post("/answer", json=body).status_code == 200
    assert recorded(folder) == {trial["id"]: "same"}


@pytest.mark.parametrize("header", ["origin", "host", "cookie", "range", "content-type"])
def test_malformed_headers_are_refused_and_never_an_error_of_the_server(study, header):
    client = signed_in(study)
    for value in ("http://[", "[", "\x01", "x" * 8000, "a=b;;=;", "bytes=9-1,-,x", ""):
        for method, path in (
            ("POST", f"/join/{study.join_key}"),
            ("POST", "/answer"),
            ("GET", "/test"),
            ("GET", "/sound/volume"),
        ):
            assert client.request(method, path, headers={header: value}, content=b"{}").status_code < 500, value


def test_what_is_heard_first_is_what_is_credited(study):
    client = signed_in(study)
    connection = sqlite3.connect(study.folder / "listen.sqlite")
    played = dict(connection.execute("SELECT played, side || pair FROM clip").fetchall())
    connection.close()
    audio = {(study.folder / name).read_bytes(): side for name, side in played.items()}
    heard = []
    trial = trial_of(client.get("/test").text)
    while trial:
        heard.append(audio[client.get(trial["second"]).content])
        body = {"trial": trial["id"], "choice": "second", "seconds": 1, "plays": 2}
        trial = client.post("/answer", json=body).json()["next"]
    assert [f"{answer.preferred}{answer.pair}" for answer in study.answers()] == heard
    assert len(heard) == 6


def test_sounds_come_in_ranges_as_phones_ask_for_them(study):
    client = signed_in(study)
    trial = trial_of(client.get("/test").text)
    part = client.get(trial["first"], headers={"range": "bytes=0-1"})
    assert (part.status_code, part.content) == (206, b"RI")
    assert client.get("/sound/volume").content[:4] == b"RIFF"


def test_a_page_tells_nothing_about_sides_or_kinds(study):
    page = signed_in(study).get("/test").text
    assert set(trial_of(page)) == {"id", "number", "total", "text", "first", "second"}
    assert not re.search("anchor|repeat|plain|tuned", page)


def test_a_name_with_a_script_stays_text(study):
    client = signed_in(study, "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>")
    page = client.get(f"/join/{study.join_key}")
    assert "<img" not in page.text
    assert "<script>alert" not in page.text
    assert "&lt;script&gt;" in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]


def test_sessions_of_others_and_no_session_get_nothing(study):
    ann, bob, nobody = signed_in(study), signed_in(study, "Bob"), client_of(study)
    trial = trial_of(ann.get("/test").text)
    body = {"trial": trial["id"], "choice": "first", "seconds": 1, "plays": 2}
    assert bob.post("/answer", json=body).status_code == 409
    assert bob.get(trial["first"]).status_code == 404
    for path in ("/", "/test", "/volume", "/done", trial["first"], "/sound/volume"):
        assert nobody.get(path).status_code == 403, path
    assert nobody.post("/answer", json=body).status_code == 403
    nobody.cookies.set("listen", "x" * 32)
    assert nobody.get("/test").status_code == 403
    assert nobody.get("/resume/" + "x" * 32).status_code == 404
    assert nobody.get("/join/" + "x" * 16).status_code == 404
    assert study.answers() == []


def test_a_personal_link_goes_on_elsewhere(study):
    ann, phone = signed_in(study), client_of(study)
    link = re.search(r'href="(/resume/[^"]+)"', ann.get("/test").text)[1]
    assert phone.get(link).status_code == 303
    assert trial_of(phone.get("/test").text) == trial_of(ann.get("/test").text)
    cookie = phone.get(link).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie


def test_answers_that_cannot_be_are_refused(study):
    client = signed_in(study)
    trial = trial_of(client.get("/test").text)["id"]
    good = {"trial": trial, "choice": "first", "seconds": 1, "plays": 2}
    for wrong in (
        {"choice": "both"},
        {"choice": ["first"]},
        {"choice": None},
        {"trial": 3},
        {"trial": {"$ne": ""}},
        {"seconds": -1},
        {"seconds": "1"},
        {"seconds": True},
        {"plays": 1e300},
        {"plays": 2.5},
    ):
        assert client.post("/answer", json=good | wrong).status_code == 400, wrong
    headers = {"content-type": "application/json"}
    for body in (
        b"",
        b"{",
        b"[]",
        b"3",
        b"\xff\xfe",
        b"[" * 4000,
        json.dumps(good | {"seconds": float("nan")}).encode(),
    ):
        assert client.post("/answer", content=body, headers=headers).status_code == 400, body[:20]
    assert client.post("/answer", content=b" " * 5000, headers=headers).status_code == 413
    assert client.post("/answer", content=json.dumps(good), headers={"content-type": "text/plain"}).status_code == 415
    assert client.post("/answer", json=good | {"trial": "' OR 1=1 --"}).status_code == 409
    assert client.get("/answer").status_code == 405
    assert study.answers() == []


def test_other_sites_cannot_answer_or_join(study):
    client = signed_in(study)
    trial = trial_of(client.get("/test").text)["id"]
    good = {"trial": trial, "choice": "first", "seconds": 1, "plays": 2}
    for origin in ("http://evil.example", "null"):
        assert client.post("/answer", json=good, headers={"origin": origin}).status_code == 403
        assert client.post(f"/join/{study.join_key}", data={}, headers={"origin": origin}).status_code == 403
    assert client.post("/answer", json=good, headers={"origin": str(client.base_url).rstrip("/")}).status_code == 200


def test_limits_per_session_per_address_and_for_guessing(study):
    client = client_of(study, session=(0.1, 5))
    client.post(f"/join/{study.join_key}", data={"name": "x"})
    codes = [client.get("/volume").status_code for _ in range(7)]
    assert codes == [200] * 5 + [429] * 2
    guesser = client_of(study, failures=(0.1, 3))
    assert [guesser.get(f"/resume/{n}").status_code for n in range(5)] == [404] * 3 + [429] * 2
    flood = client_of(study, address=(0.1, 4))
    answers = [flood.get("/static/style.css") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 2
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert answers[-1].headers["x-content-type-options"] == "nosniff"


def test_no_path_of_a_client_reaches_the_disk(tmp_path, serving):
    study = make_study(tmp_path, 2, pairs=2, repeats=0, anchors=0)
    (study / "audio" / "secret").write_text("hidden treasure")
    server = serving(str(study), "0")
    cookie = httpx.post(server.link, data={"name": "x"}).cookies["listen"]
    known = next((study / "audio").glob("*.wav")).name
    for path in (
        "/sound/../secret", "/sound/../../listen.sqlite", "/sound/..%2f..%2flisten.sqlite", "/sound/%2e%2e/secret",
        "/sound/secret", "/sound/audio%2fsecret", f"/sound/{known}", f"/sound/audio/{known}",
        f"/sound/{study}/audio/secret", f"//{study}/audio/secret", "/sound/%00",
        "/sound/..%5c..%5csecret", "/static/../web.py", "/static/..%2fweb.py",
        "/static/__init__.py", "/../../../../etc/passwd", "/static/%2e%2e%2f%2e%2e%2frundir.py",
        "file:///etc/passwd", "/sound/" + "a" * 3000, "/sound/%F0%9F%92%A9", "/sound/%ff%fe",
    ):  # fmt: skip
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
            head = f"GET {path} HTTP/1.1\r\nHost: x\r\nCookie: listen={cookie}\r\nConnection: close\r\n\r\n"
            raw.sendall(head.encode())
            got = b"".join(iter(lambda raw=raw: raw.recv(65536), b""))
        status = int(got.split()[1])
        assert status in (400, 403, 404, 429), (path, got[:200])
        for leak in (b"treasure", b"SQLite format", b"RIFF", b"import ", b"root:"):
            assert leak not in got, path
    assert httpx.get(server.base + "/sound/volume", cookies={"listen": cookie}).status_code == 200
    assert "Traceback" not in server.stop()


# Where it listens


def test_without_a_host_only_this_machine_is_served():
    with bind(None, 0) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"
        assert is_loopback("127.0.0.1")
        with pytest.raises(ConfigError, match="cannot listen"):
            bind(None, listening.getsockname()[1])
    with bind("0.0.0.0", 0) as listening:
        assert all("0.0.0.0" not in address for address in addresses(listening))
    with pytest.raises(ConfigError, match="cannot listen"):
        bind("203.0.113.7", 0)
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("example.org")


def test_help_report_and_serve_are_told_apart(tmp_path):
    run = CliRunner().invoke
    assert "--anchor-snr" in run(cli.app, ["serve", "--help"]).output
    assert "report" in run(cli.app, ["--help"]).output
    missing = run(cli.app, ["--port", "0", str(tmp_path / "a"), str(tmp_path / "b")])
    assert "is not a directory" in str(missing.exception)
    missing = run(cli.app, ["report", str(tmp_path)])
    assert "holds no listening test" in str(missing.exception)


def test_a_missing_package_is_an_error_with_the_command_that_installs_it(tmp_path, monkeypatch):
    folder = make_study(tmp_path, 1)
    for package in ("krippendorff", "uvicorn"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RlzooError, match="krippendorff") as alpha:
        agreement([])
    with closing(Study.open(folder)) as study, closing(bind(None, 0)) as listening:
        with pytest.raises(RlzooError, match="web server") as server:
            serve(study, listening)
    assert alpha.value.hint == server.value.hint == "pip install 'rlzoo-speech[listen]'"


# A real browser


@pytest.fixture
def browser() -> Iterator:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chrome = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not chrome or not driver:
        pytest.skip("no chromium with chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chrome
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    opened.set_window_size(420, 900)
    yield opened
    opened.quit()


@pytest.mark.slow
def test_from_the_link_to_the_export_in_a_browser(tmp_path, serving, browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    folders = make_folders(tmp_path, 3)
    (folders[0] / "metadata.csv").write_text("".join(f"p{n:02}|<b>Sentence</b> & {n}.\n" for n in range(3)))
    arguments = ["--pairs", "3", "--repeats", "1", "--anchors", "1", "--port", "0", "--out", str(tmp_path / "test")]
    server = serving(*map(str, folders), *arguments, code=COMMAND)
    assert server.base.startswith("http://127.0.0.1:")
    assert "Only this machine" in server.process.stdout.readline()
    name = "<script>window.hacked = 1</script>"

    def one(selector):
        return browser.find_element(By.CSS_SELECTOR, selector)

    def until(condition):
        return WebDriverWait(browser, 60, 0.05, ignored_exceptions=[Exception]).until(lambda _: condition())

    browser.get(server.link)
    one("#name").send_keys(name)
    one("#join").click()
    until(lambda: "Set the volume" in browser.page_source)
    start = until(lambda: one("#start"))
    start.click()
    assert browser.current_url.endswith("/volume")  # not before it was heard
    one("#play").click()
    until(lambda: "disabled" not in one("#start").get_attribute("class"))
    one("#start").click()

    choices = []
    for number in range(1, 6):
        until(lambda number=number: one("#count").text == f"{number} of 5")
        assert one("#text").text.startswith("<b>Sentence</b> & ")
        body = one("body")
        body.send_keys("1")
        assert not one("#next").is_enabled()  # not before both were heard
        by_keys = number % 2 == 1
        for side, key in (("first", Keys.ARROW_LEFT), ("second", Keys.ARROW_RIGHT)):
            body.send_keys(key) if by_keys else one(f"#play-{side}").click()
            until(lambda side=side: "heard" in one(f"#play-{side}").get_attribute("class"))
        choices.append(("first", "same", "second", "first", "second")[number - 1])
        if by_keys:
            body.send_keys({"first": "1", "same": "2", "second": "3"}[choices[-1]])
            until(lambda: one("#next").is_enabled())
            body.send_keys(Keys.ENTER)
        else:
            one(f'[data-choice="{choices[-1]}"]').click()
            one("#next").click()
        if number == 2:
            until(lambda: one("#count").text == "3 of 5")
            browser.get(server.base + "/")  # comes back later
    until(lambda: one("#thanks"))
    assert one("#thanks").text == f"Thank you, {name}"
    assert browser.execute_script("return window.hacked === undefined")
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []

    study = Study.open(tmp_path / "test")
    assert [answer.choice for answer in study.answers()] == choices
    study.close()
    assert "5 answers" in server.stop()
    run = CliRunner().invoke
    found = json.loads(run(cli.app, ["report", str(tmp_path / "test"), "--json"]).stdout)
    assert (found["answers"], found["raters"]) == (3, 1)
    assert found["consistency"]["anchors"]["heard"] == 1
    assert found["consistency"]["repeats"]["heard"] == 1
    assert found["by_rater"][0]["name"] == name
    assert name in run(cli.app, ["report", str(tmp_path / "test")]).stdout
    out = tmp_path / "pairs.jsonl"
    assert run(cli.app, ["export", str(tmp_path / "test"), "--out", str(out)]).exit_code == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 3
    assert all(Path(row["preferred"]).is_file() and Path(row["rejected"]).is_file() for row in rows)
    assert {Path(row["preferred"]).parent for row in rows} <= {folder.resolve() for folder in folders}
    assert rows[0]["prompt"]["text"].startswith("<b>Sentence</b>")
