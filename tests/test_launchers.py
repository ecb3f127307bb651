"""Where a grid is done: processes, a Ray cluster, submitit. What is killed is done again, with equal results."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from bench_tools import SUITE, run_grid

from rlzoo.bench import launch
from rlzoo.bench.jobs import execute, make, spawned
from rlzoo.bench.launch import Place

pytestmark = pytest.mark.slow
LONG = SUITE.replace("samples = 16", "samples = 120")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The grid, done in this process without any launcher."""
    return run_grid(tmp_path_factory.mktemp("expected"), LONG)


def jobs_of(suite, folder, **chosen):
    return [make(suite, cell, folder) for cell in suite.cells(**chosen)]


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def assert_equal_results(jobs, folder):
    """Evaluations and metrics of every step, times of the clock apart."""
    for job in jobs:
        other = folder / "runs" / job.key
        names = sorted(path.name for path in (other / "eval").iterdir())
        assert sorted(path.name for path in (job.run / "eval").iterdir()) == names
        for name in names:
            assert json.loads((job.run / "eval" / name).read_text()) == json.loads((other / "eval" / name).read_text())
        assert untimed(job.run) == untimed(other), job.key


def untimed(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if "seconds" not in key} for row in rows]


def attempts_in(log):
    return sum(line.startswith("$ rlzoo run") for line in log.read_text().splitlines())


def test_processes_of_this_machine_give_the_same_results(expected, tmp_path):
    suite, folder = expected
    jobs = jobs_of(suite, tmp_path / "grid")
    assert {outcome.state for outcome in launch.local(jobs, Place(jobs=2))} == {"done"}
    assert_equal_results(jobs, folder)


def test_a_run_whose_process_is_killed_is_continued(expected, tmp_path):
    suite, folder = expected
    (job,) = jobs_of(suite, tmp_path / "grid", only=["ddpo"], seeds=[0])
    codes = []

    def killed_first(job):
        if codes:
            codes.append(spawned(job))
            return codes[-1]
        command = [sys.executable, "-m", "rlzoo.bench.worker", job.dumps(), str(os.getpid())]
        with job.beside(".log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for((job.run / "checkpoints/LATEST").is_file)
        process.kill()
        codes.append(process.wait())
        return codes[-1]

    outcome = execute(job, killed_first)
    assert codes == [-signal.SIGKILL, 0]
    assert (outcome.state, outcome.attempts) == ("done", 2)
    assert "--resume" in job.beside(".log").read_text()
    assert_equal_results([job], folder)


@pytest.mark.parametrize("when", ["starting", "running"])
def test_a_run_does_not_outlive_its_launcher_to_meet_its_successor(expected, tmp_path, when):
    suite, folder = expected
    (job,) = jobs_of(suite, tmp_path / "grid", only=["ddpo"], seeds=[1])
    code = "import sys; from rlzoo.bench.jobs import Job, execute; execute(Job.loads(sys.argv[1]))"
    launcher = subprocess.Popen([sys.executable, "-c", code, job.dumps()])
    wait_for((job.run / "checkpoints/LATEST").is_file if when == "running" else job.beside(".log").is_file)
    launcher.kill()
    launcher.wait()
    outcome = execute(job)
    assert outcome.state == "done", job.beside(".log").read_text()
    assert attempts_in(job.beside(".log")) == (2 if when == "running" else 1)
    assert_equal_results([job], folder)


@pytest.fixture
def patient_ray(monkeypatch):
    """Ray, made to wait for a machine that has other work. Configuration for a cluster's head.

    Of itself it gives up a node that takes 30 s to start or 15 s to answer, and runs tasks at nearly the lowest
    priority. A node that is dead refuses to answer at once, so that patience does not hide a loss.
    """
    engine = pytest.importorskip("ray")
    services = engine._private.services
    ask = services.get_node

    def get_node(*arguments):
        end = time.monotonic() + 300
        while True:
            try:
                return ask(*arguments)
            except RuntimeError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)

    monkeypatch.setattr(services, "get_node", get_node)
    monkeypatch.setenv("RAY_worker_niceness", "0")
    return {"health_check_period_ms": 1000, "health_check_timeout_ms": 120_000, "worker_register_timeout_seconds": 300}


@pytest.mark.filterwarnings("ignore")
def test_a_ray_cluster_of_two_nodes_survives_the_loss_of_one(expected, tmp_path, patient_ray):
    import ray as engine
    from ray.cluster_utils import Cluster

    suite, folder = expected
    jobs = jobs_of(suite, tmp_path / "grid")
    over = threading.Event()
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": patient_ray}
    cluster = Cluster(initialize_head=True, head_node_args=head)

    def lose_one(node):
        # Each node has a run by now, and one of the runs something to continue; the other may just be starting.
        while not over.wait(0.05):
            begun = sum(job.beside(".log").is_file() for job in jobs)
            if begun >= 2 and any((job.run / "checkpoints/LATEST").is_file() for job in jobs):
                cluster.remove_node(node, allow_graceful=False)
                return

    try:
        other = cluster.add_node(wait=False, num_cpus=1)
        cluster.wait_for_nodes(timeout=300)
        thread = threading.Thread(target=lose_one, args=(other,))
        thread.start()
        try:
            outcomes = list(launch.ray(jobs, Place(address=cluster.address)))
        finally:
            over.set()
            thread.join()
        alive = [node["NodeID"] for node in engine.nodes() if node["Alive"]]
        assert alive == [cluster.head_node.node_id]
    finally:
        engine.shutdown()
        cluster.shutdown()
    assert [outcome for outcome in outcomes if outcome.state != "done"] == []
    assert len(outcomes) == len(jobs)
    assert_equal_results(jobs, folder)


@pytest.mark.filterwarnings("ignore")
def test_submitit_runs_the_grid(expected, tmp_path):
    pytest.importorskip("submitit")
    suite, folder = expected
    jobs = jobs_of(suite, tmp_path / "grid", only=["ddpo"])
    outcomes = list(launch.slurm(jobs, Place(jobs=1, slurm={"cluster": "local", "timeout_min": "5"})))
    assert {outcome.state for outcome in outcomes} == {"done"}
    assert len(outcomes) == len(jobs) == 2
    assert_equal_results(jobs, folder)
