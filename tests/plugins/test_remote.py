"""Scores from elsewhere: right, in order, and an error whenever they cannot be had."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from rlzoo_guard import GuardOptions
from rlzoo_guard.reward import GuardReward
from rlzoo_remote import HTTPOptions, ProcessOptions
from rlzoo_remote.http import HTTPReward
from rlzoo_remote.process import ProcessReward

from rlzoo.api import Prompt, Samples
from rlzoo.audio import to_samples
from rlzoo.errors import ConfigError, ContractError, DataError

WAVES = [torch.full((size,), value) for size, value in ((4, 0.5), (2, -0.25), (3, 0.1), (1, 1.0), (2, 0.0))]
PROMPTS = [Prompt(str(row), f"text {row}", {"speaker": row}) for row in range(5)]
EXPECTED = [0.5, -0.25, 0.1, 1.0, 0.0]


def batch() -> Samples:
    return to_samples(WAVES, 8_000)


def good(body: dict[str, object]) -> tuple[int, object]:
    rows = body["rows"]
    assert isinstance(rows, list)
    waves = [np.frombuffer(base64.b64decode(row["audio"]), "<f4") for row in rows]
    parts = {"size": [len(wave) for wave in waves]}
    return 200, {"id": body["id"], "scores": [float(wave.mean()) for wave in waves], "parts": parts}


class Service:
    def __init__(self) -> None:
        self.url = ""
        self.reply: Callable[[dict[str, object]], tuple[int, object]] = good
        self.requests: list[dict[str, object]] = []
        self.tokens: list[str | None] = []


@pytest.fixture
def service() -> Iterator[Service]:
    state = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.requests.append(body)
            state.tokens.append(self.headers.get("Authorization"))
            status, content = state.reply(body)
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except BrokenPipeError:
                pass  # the client gave up, as a test wants it to

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/score"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def http(service: Service, **options: object) -> HTTPReward:
    return HTTPReward(HTTPOptions.model_validate({"url": service.url, "backoff_seconds": 0.01, **options}))


def test_http_scores_in_batches_and_in_order(service: Service) -> None:
    scores = http(service, batch=2).score(batch(), PROMPTS)
    assert scores.values.tolist() == pytest.approx(EXPECTED)
    assert scores.parts["size"].tolist() == [4, 2, 3, 1, 2]
    assert [len(asked["rows"]) for asked in service.requests] == [2, 2, 1]  # type: ignore[arg-type]
    first = service.requests[0]
    assert first["sample_rate"] == 8_000
    rows = first["rows"]
    assert isinstance(rows, list)
    assert (rows[1]["id"], rows[1]["text"], rows[1]["attributes"]) == ("1", "text 1", {"speaker": 1})


def test_http_tries_again_after_a_passing_failure(service: Service) -> None:
    answers = iter([(503, "busy"), (429, "slow down")])
    service.reply = lambda body: next(answers, None) or good(body)
    assert http(service).score(batch(), PROMPTS).values.tolist() == pytest.approx(EXPECTED)
    assert len(service.requests) == 3


@pytest.mark.parametrize(
    ("reply", "error", "said", "attempts"),
    [
        ((503, "busy"), DataError, "after 4 attempts .503", 4),
        ((400, "bad request"), DataError, "after 1 attempts .400", 1),
        ((200, {"id": 0, "scores": [1.0]}), ContractError, "answered 1 'scores' for 5 rows", 1),
        ((200, {"id": 0, "scores": [1.0] * 5, "parts": {"x": [1.0]}}), ContractError, "answered 1 'x' for 5 rows", 1),
        ((200, b'{"scores": [1, 2, 3, 4, NaN]}'), ContractError, "something else than scores", 1),
        ((200, b"<html>"), ContractError, "something else than scores", 1),
        ((200, {"error": "out of memory"}), DataError, "failed: out of memory", 1),
    ],
)
def test_http_never_invents_a_score(
    service: Service, reply: tuple[int, object], error: type[Exception], said: str, attempts: int
) -> None:
    service.reply = lambda body: reply
    with pytest.raises(error, match=said):
        http(service).score(batch(), PROMPTS)
    assert len(service.requests) == attempts


def test_http_gives_up_on_a_silent_service_and_on_none(service: Service) -> None:
    def slow(body: dict[str, object]) -> tuple[int, object]:
        time.sleep(0.5)
        return good(body)

    service.reply = slow
    with pytest.raises(DataError, match="ReadTimeout"):
        http(service, timeout_seconds=0.05, retries=1).score(batch(), PROMPTS)
    assert len(service.requests) == 2
    nobody = HTTPReward(HTTPOptions.model_validate({"url": "http://127.0.0.1:9/", "retries": 0}))
    with pytest.raises(DataError, match="ConnectError"):
        nobody.score(batch(), PROMPTS)


def test_http_takes_its_token_from_the_environment(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCORER_TOKEN", "abc")
    http(service, token_env="SCORER_TOKEN").score(batch(), PROMPTS)
    assert service.tokens == ["Bearer abc"]
    monkeypatch.delenv("SCORER_TOKEN")
    with pytest.raises(ConfigError, match="'SCORER_TOKEN' is not set"):
        http(service, token_env="SCORER_TOKEN")


SCORER = """
import base64, json, os, struct, sys
for line in sys.stdin:
    asked = json.loads(line)
    rows = asked["rows"]
    waves = [base64.b64decode(row["audio"]) for row in rows]
    means = [sum(struct.unpack(f"<{len(w) // 4}f", w)) / (len(w) // 4) for w in waves]
    parts = {"pid": [os.getpid()] * len(rows), "level": [float(os.environ["LEVEL"])] * len(rows)}
    print(json.dumps({"id": asked["id"], "scores": means, "parts": parts}), flush=True)
"""


WORKER = (sys.executable, "-m", "rlzoo_remote.worker")


def process(tmp_path: Path, program: str, **options: object) -> ProcessReward:
    (tmp_path / "scorer.py").write_text(program)
    command = (sys.executable, "-I", "-S", str(tmp_path / "scorer.py"))
    return ProcessReward(ProcessOptions.model_validate({"command": command, "env": {"LEVEL": "3"}, **options}))


def test_processes_share_the_work_and_keep_the_order(tmp_path: Path) -> None:
    reward = process(tmp_path, SCORER, workers=2, batch=1)
    scores = reward.score(batch(), PROMPTS)
    assert scores.values.tolist() == pytest.approx(EXPECTED)
    pids = scores.parts["pid"].tolist()
    assert len(set(pids)) == 2
    assert pids[0] == pids[2] == pids[4]
    assert scores.parts["level"].tolist() == [3.0] * 5
    assert reward.score(batch(), PROMPTS).parts["pid"].tolist() == pids
    reward.close()


@pytest.mark.parametrize(
    ("program", "error", "said"),
    [
        ("import sys; sys.exit('no licence found')", DataError, "exit code 1: no licence found"),
        ("import sys; sys.stdin.readline(); import os; os._exit(7)", DataError, "exit code 7: it wrote nothing"),
        ("import time; time.sleep(60)", DataError, "did not answer within 1 s"),
        ("input(); print('hello', flush=True)", ContractError, "something else than scores"),
        ('input(); print(\'{"id": 1, "scores": [1]}\', flush=True)', ContractError, "answered 1 'scores' for 5 rows"),
        ("input(); print('{\"scores\": [1]}', flush=True)", ContractError, "an answer without an `id`"),
        ("input(); import sys; sys.stdout.buffer.write(b'\\xff\\n')", ContractError, "something else than scores"),
        ("while True: print('x' * 65536, end='')", DataError, "more than 16 MiB"),
    ],
)
def test_processes_never_invent_a_score(tmp_path: Path, program: str, error: type[Exception], said: str) -> None:
    reward = process(tmp_path, program, timeout_seconds=1)
    with pytest.raises(error, match=said):
        reward.score(batch(), PROMPTS)
    assert reward._workers == []


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(DataError, match="'/no/such/scorer' cannot be started"):
        ProcessReward(ProcessOptions(command=("/no/such/scorer",))).score(batch(), PROMPTS)


def test_a_line_too_many_is_an_error_and_never_the_next_answer(tmp_path: Path) -> None:
    twice = SCORER.replace(
        "flush=True)", "flush=True)\n    print(json.dumps({'id': 1, 'scores': [9] * 5}), flush=True)"
    )
    reward = process(tmp_path, twice)
    assert reward.score(batch(), PROMPTS).values.tolist() == pytest.approx(EXPECTED)
    with pytest.raises(ContractError, match="an answer to request 1 to request 2"):
        reward.score(batch(), PROMPTS)


def alive(pid: int) -> bool:
    """Whether it runs; what has ended and waits to be waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pid: int, within: float = 10.0) -> bool:
    end = time.monotonic() + within
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


def scorer_with_a_child(tmp_path: Path, then: str) -> tuple[str, ...]:
    return ("sh", "-c", f"sleep 1000 & echo $! > {tmp_path / 'pid'}; {then}")


@pytest.mark.parametrize("then", ["wait", "cat >/dev/null", "exit 0"])
def test_what_a_scorer_has_started_ends_with_it(tmp_path: Path, then: str) -> None:
    reward = ProcessReward(ProcessOptions(command=scorer_with_a_child(tmp_path, then), timeout_seconds=0.5))
    started = time.monotonic()
    with pytest.raises(DataError, match="did not answer within"):
        reward.score(batch(), PROMPTS)
    assert time.monotonic() - started < 20  # not the 1,000 s of the child that holds standard output
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_killed_run_takes_its_scorers_along(tmp_path: Path) -> None:
    code = (
        "import sys; from rlzoo_remote.process import Worker; "
        f"Worker({scorer_with_a_child(tmp_path, 'wait')!r}, {{}}, 5); print('ready', flush=True); sys.stdin.read()"
    )
    ours = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with ours:
        assert ours.stdout is not None
        assert ours.stdout.readline() == b"ready\n"
        end = time.monotonic() + 10
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
            assert time.monotonic() < end
            time.sleep(0.02)
        ours.kill()
    assert gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("options", [{"command": ["sh\0"]}, {"command": ["cat"], "env": {"A=B": "c"}}])
def test_what_no_system_can_start_is_an_error_of_the_run_file(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="cannot be started"):
        ProcessReward(ProcessOptions.model_validate(options)).score(batch(), PROMPTS)


class Raw:
    """A server that sends what it is told to, byte by byte where it drips."""

    def __init__(self, content: bytes, pause: float) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}/"
        self.content, self.pause = content, pause
        self.stopped = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while not self.stopped.is_set():
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        size = 1 if self.pause else 1 << 16
        with connection, contextlib.suppress(OSError):
            connection.recv(1 << 20)
            for first in range(0, len(self.content), size):
                connection.sendall(self.content[first : first + size])
                if self.stopped.wait(self.pause):
                    return
            # Closing with a part of the request unread would reset the connection, and the answer would be lost.
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass

    def close(self) -> None:
        self.stopped.set()
        self.listening.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("content", "pause", "said"),
    [
        (HEAD + b"X: " + b"x" * 5000, 0.02, "ReadTimeout"),  # a header that never ends
        (HEAD + b"Content-Length: 9000\r\n\r\n" + b" " * 9000, 0.02, "ReadTimeout"),
        (HEAD + b"Content-Length: 99999999\r\n\r\n" + b" " * (17 << 20), 0, "more than 16 MiB"),
        (HEAD + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", 0, "DecodingError"),
    ],
)
def test_http_is_bounded_in_time_and_size(content: bytes, pause: float, said: str) -> None:
    server = Raw(content, pause)
    options = {"url": server.url, "timeout_seconds": 0.5 if pause else 30, "retries": 0}
    started = time.monotonic()
    with pytest.raises(DataError, match=said):
        HTTPReward(HTTPOptions.model_validate(options)).score(batch(), PROMPTS)
    assert time.monotonic() - started < 20  # the whole answer would take 100 s and more
    server.close()


@pytest.mark.parametrize("token", ["schl\u00fcssel", "a\nb"])
def test_a_token_that_no_header_takes(service: Service, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("SCORER_TOKEN", token)
    with pytest.raises(ConfigError, match="'SCORER_TOKEN' has a character that no HTTP header takes"):
        http(service, token_env="SCORER_TOKEN")


@pytest.mark.slow
def test_a_registered_reward_in_a_process_equals_itself_here() -> None:
    wave = torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    samples = to_samples([wave], 16_000)
    reward = ProcessReward(ProcessOptions(command=(*WORKER, "guard", '{"max_dc": 0.5}')))
    found = reward.score(samples, PROMPTS[:1])
    expected = GuardReward(GuardOptions(max_dc=0.5)).score(samples, PROMPTS[:1])
    assert torch.allclose(found.values, expected.values)
    assert found.parts.keys() == expected.parts.keys()
    reward.close()
    broken = ProcessReward(ProcessOptions(command=(*WORKER, "gard", "{}")))
    with pytest.raises(DataError, match="gard"):
        broken.score(samples, PROMPTS[:1])


def test_impossible_options() -> None:
    for options in ({}, {"command": []}, {"command": ["a"], "workers": 0}):
        with pytest.raises(ValidationError):
            ProcessOptions.model_validate(options)
    with pytest.raises(ValidationError):
        HTTPOptions.model_validate({"url": "file:///etc/passwd"})
