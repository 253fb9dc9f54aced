"""The command line as a person uses it: processes, exit codes, output; Ray, but no real engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest

from autotuner.client import Row
from autotuner.store import Store
from autotuner.study.study import Study
from tests.builders import spec
from tests.processes import alive, command_holds, local_ray, ours, started, tree, wait_for
from tests.simulated import study_file

pytestmark = pytest.mark.slow

SLOW_LOAD = {
    "scenarios": ["D(50,20)"],
    "concurrency": [2],
    "max_requests": 100_000,
    "max_seconds": 60,
}


def autotuner(*arguments: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "autotuner", *arguments],
        env={**os.environ, "AUTOTUNER_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any]]:
    """A home with a finished study named `quick`, and what `run --json` printed."""
    home = tmp_path_factory.mktemp("home")
    space = {"max-num-seqs": [1, 16], "max-num-batched-tokens": [8, 2048]}
    file = study_file(home, space=space, search={"kind": "grid"})
    done = autotuner("run", str(file), "--json", home=home, **mirrored(home))
    assert done.returncode == 0, done.stderr
    yield home, json.loads(done.stdout)
    assert ours("quick") == []


def test_a_study_runs_to_its_winner(finished: tuple[Path, Any]) -> None:
    home, report = finished
    assert report["study"]["state"] == "COMPLETE"
    assert report["baseline"] == 0
    launched = [t for t in report["trials"] if not t["refused"]]
    assert [t["state"] for t in launched] == ["COMPLETE"] * len(launched)
    assert len(launched) == 4  # the baseline, and three points of which none is refused
    assert report["counts"]["REFUSED"] == 1
    assert report["best"] in [t["number"] for t in launched]
    assert report["gain"]["output_throughput"] is not None
    assert (home / "studies" / "quick" / "report.html").stat().st_size > 1000
    assert not (home / "studies" / "quick" / "tune").exists()


def mirrored(home: Path) -> dict[str, str]:
    return {"AUTOTUNER_OPTUNA_STORAGE": f"sqlite:///{home / 'optuna.db'}"}


def test_it_was_mirrored_while_it_ran_and_has_a_log_of_its_own(
    finished: tuple[Path, Any],
) -> None:
    home, report = finished
    (shown,) = optuna.get_all_study_summaries(mirrored(home)["AUTOTUNER_OPTUNA_STORAGE"])
    launched = [each for each in report["trials"] if not each["refused"]]
    assert shown.study_name == "quick"
    assert shown.n_trials >= len([each for each in launched if each["searched"]])
    before = shown.n_trials
    again = autotuner("mirror", "quick", home=home, **mirrored(home))
    assert again.stdout == "mirrored quick\n", again.stderr
    (shown,) = optuna.get_all_study_summaries(mirrored(home)["AUTOTUNER_OPTUNA_STORAGE"])
    assert shown.n_trials == before
    log = (home / "studies" / "quick" / "study.log").read_text(encoding="utf-8")
    assert log.splitlines()[0].endswith(" starting Ray")
    assert "trial 0 COMPLETE" in log


def test_every_read_command_prints_text_and_json(finished: tuple[Path, Any]) -> None:
    home, _ = finished

    def printed(*command: str) -> Any:
        return json.loads(autotuner(*command, "--json", home=home).stdout)

    (listed,) = printed("list")
    shown = printed("status", "quick")
    # The same value, and the same that a service gives: a script need not ask where it runs.
    assert shown == listed | {"seconds": shown["seconds"]}
    assert set(shown) == set(Row.__annotations__) - {"notes"}
    for command in (["status", "quick"], ["list"], ["report", "quick"], ["export", "quick"]):
        text = autotuner(*command, home=home)
        assert text.returncode == 0, text.stderr
        assert text.stdout.strip()
        assert json.loads(autotuner(*command, "--json", home=home).stdout)


def test_the_report_marks_the_best_and_compares_it(finished: tuple[Path, Any]) -> None:
    home, report = finished
    text = autotuner("report", "quick", home=home).stdout
    assert f"* {report['best']}" in text
    assert "engine defaults" in text
    assert report["command"] in text.replace("\n", "")


def test_an_exported_command_starts_the_winner(finished: tuple[Path, Any]) -> None:
    home, report = finished
    line = autotuner("export", "quick", home=home).stdout.strip()
    assert line == report["command"]
    docker = autotuner("export", "quick", "--format", "docker", home=home).stdout
    assert docker.startswith("docker run --rm")
    arguments = autotuner("export", "quick", "--format", "args", home=home).stdout.splitlines()
    assert arguments[0] == "--model"
    server = subprocess.Popen(
        [
            *json.loads(autotuner("export", "quick", "--json", home=home).stdout)["argv"],
            "--port",
            "0",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    time.sleep(0.5)
    assert server.poll() is None, server.communicate()[1]
    server.kill()
    server.communicate()


def test_a_name_is_taken_until_it_is_restarted(finished: tuple[Path, Any]) -> None:
    home, _ = finished
    again = autotuner("run", str(home / "study.json"), home=home)
    assert again.returncode == 2
    assert "--restart" in again.stderr
    assert "autotuner report quick" in again.stderr
    assert "resume" not in again.stderr, "it is complete"


def test_what_does_not_exist_is_said(tmp_path: Path) -> None:
    for command in (["status", "nope"], ["report", "nope"], ["resume", "nope"], ["export", "nope"]):
        done = autotuner(*command, home=tmp_path)
        assert done.returncode == 2
        assert "nope" in done.stderr
        assert "Traceback" not in done.stderr


def test_check_answers_without_ray_and_says_every_mistake(tmp_path: Path) -> None:
    file = study_file(
        tmp_path,
        space={"max-num-seq": [1], "block-size": ["many"]},
        engine={"kind": "simulated", "arguments": {"port": 1}},
    )
    done = autotuner("check", str(file), home=tmp_path)
    assert done.returncode == 2
    assert "max-num-seqs" in done.stderr
    assert "many" in done.stderr
    assert "--port is set by autotuner" in done.stderr
    assert "study.json:1" in done.stderr
    imported = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "autotuner", "check", str(file)],
        capture_output=True,
        text=True,
        check=False,
    ).stderr
    assert not [line for line in imported.splitlines() if line.endswith((" ray", "sqlalchemy"))]


def test_a_plan_starts_nothing_and_shows_the_exact_argv(tmp_path: Path) -> None:
    file = study_file(tmp_path, space={"max-num-seqs": [1, 16], "max-num-batched-tokens": [8]})
    plan = json.loads(autotuner("plan", str(file), "--json", home=tmp_path).stdout)
    assert plan["size"] == 2
    assert sum(plan["refused"].values()) == 1
    assert [each["name"] for each in plan["launches"]] == ["baseline", "trial 1"]
    assert "--max-num-seqs" in plan["launches"][1]["argv"]
    assert not (tmp_path / "studies").exists()


def test_nothing_feasible_is_exit_code_1_with_the_reason(tmp_path: Path) -> None:
    file = study_file(
        tmp_path,
        name="hopeless",
        engine={"kind": "simulated", "arguments": {"fail-at-start": "memory"}},
    )
    done = autotuner("run", str(file), home=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "no feasible trial" in done.stdout
    assert "out of memory" in done.stdout
    assert ours("hopeless") == []


def test_a_machine_that_fails_is_exit_code_3(tmp_path: Path) -> None:
    file = study_file(
        tmp_path,
        name="broken",
        engine={"kind": "simulated", "arguments": {"fail-at-start": "port"}},
    )
    done = autotuner("run", str(file), home=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "port" in done.stderr
    status = json.loads(autotuner("status", "broken", "--json", home=tmp_path).stdout)
    assert status["state"] == "FAILED"


def test_a_study_of_another_version_is_named_and_in_nobodys_way(tmp_path: Path) -> None:
    with closing(Store(f"sqlite:///{tmp_path}/autotuner.db")) as store:
        for name in ("known", "unknown"):
            store.create(Study(spec(name=name), str(tmp_path), created_at="2026-01-01T00:00:00Z"))
        with store._engine.begin() as connection:
            connection.exec_driver_sql(
                "UPDATE studies SET spec = '{\"x\": 1}', version = '9.1' WHERE name = 'unknown'"
            )
    done = autotuner("list", "--json", home=tmp_path)
    assert done.returncode == 0
    assert [each["name"] for each in json.loads(done.stdout)] == ["known"]
    assert done.stderr == "unknown: stored by autotuner 9.1, which reads it; this one does not\n"
    refused = autotuner("status", "unknown", home=tmp_path)
    assert refused.returncode == 2
    assert "9.1" in refused.stderr


def test_a_full_disk_is_exit_code_3_and_no_traceback(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "autotuner", "openapi"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "AUTOTUNER_HOME": str(tmp_path)},
            check=False,
        )
    assert done.returncode == 3
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unusable_store_is_exit_code_3(tmp_path: Path) -> None:
    done = autotuner("list", home=tmp_path, AUTOTUNER_STORE="sqlite:////proc/nope/x.db")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr


def test_interrupting_keeps_the_answers_and_resuming_finishes(tmp_path: Path) -> None:
    name = "interrupted"
    file = study_file(
        tmp_path,
        name=name,
        space={"max-num-seqs": [1, 2, 16]},
        search={"kind": "grid", "parallel": 1},
    )
    with started("run", str(file), home=tmp_path) as driver:
        assert wait_for(lambda: states(tmp_path, name).get("COMPLETE", 0) >= 1, 60, every=1)
        driver.send_signal(signal.SIGINT)
        assert driver.wait(timeout=30) == 130
    last = (tmp_path / "stderr.txt").read_text().splitlines()[-1]
    assert last == f"autotuner resume {name} goes on with it"
    assert ours(name) == []
    status = json.loads(autotuner("status", name, "--json", home=tmp_path).stdout)
    assert status["state"] == "CANCELLED"
    before = states(tmp_path, name)["COMPLETE"]
    done = autotuner("resume", name, "--json", home=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["counts"] == {"COMPLETE": 4}
    points = [json.dumps(t["parameters"]) for t in report["trials"]]
    assert len(set(points)) == 4
    assert before >= 1
    assert autotuner("resume", name, home=tmp_path).returncode == 2


def states(home: Path, name: str) -> dict[str, int]:
    done = autotuner("status", name, "--json", home=home)
    counted: dict[str, int] = json.loads(done.stdout)["counts"] if done.returncode == 0 else {}
    return counted


@pytest.mark.parametrize("moment", ["deploying", "measuring"])
@pytest.mark.parametrize("victim", ["driver", "actor", "raylet", "server", "guard"])
def test_killed_by_sigkill_nothing_is_left_after_ten_seconds(
    tmp_path: Path, victim: str, moment: str
) -> None:
    name = f"killed-{victim}-{moment}"
    arguments: dict[str, Any] = {"speed": 5, "spawn-children": 2}
    if moment == "deploying":
        arguments["start-seconds"] = 60
    file = study_file(
        tmp_path,
        name=name,
        space={},
        engine={"kind": "simulated", "arguments": arguments},
        workload=SLOW_LOAD,
        limits={"ready_seconds": 90},
    )
    with started("run", str(file), home=tmp_path) as driver:
        # The server with two children in sessions of their own, the load generator, two guards.
        assert wait_for(lambda: len(ours(name)) >= 6, 90), errors(tmp_path)
        if moment == "measuring":
            assert wait_for(
                lambda: any((tmp_path / "studies").rglob("load-0/genai-bench.log")), 90
            ), errors(tmp_path)
        family = tree(driver.pid) + local_ray(name)
        left_over = ours(name)
        # Ray's workers give way to all else unless told otherwise, and so would what is measured.
        assert {process.nice() for process in left_over} == {psutil.Process().nice()}
        chosen = the(victim, driver.pid, name)
        chosen.kill()
        if victim == "guard":
            # Its program dies with it; the program's children are left to the sweep, once
            # the owner is gone too.
            driver.kill()
            wait_for(lambda: not any(map(alive, family)), 10)
            autotuner("sweep", "--study", name, home=tmp_path)
        assert wait_for(lambda: not any(map(alive, left_over)), 10), [
            (p.pid, p.cmdline()) for p in left_over if alive(p)
        ]
        if victim == "driver":
            assert wait_for(lambda: not any(map(alive, family)), 10), [
                (p.pid, p.cmdline()) for p in family if alive(p)
            ]
            text = autotuner("status", name, home=tmp_path).stdout
            assert f"autotuner resume {name}" in text


def servers(name: str) -> list[psutil.Process]:
    return [p for p in ours(name) if command_holds(p, "simulated_server") and not is_guard(p)]


def is_guard(process: psutil.Process) -> bool:
    return command_holds(process, "guard.py")


def the(victim: str, driver: int, name: str) -> psutil.Process:
    """The one process to kill."""
    if victim == "driver":
        return psutil.Process(driver)
    if victim == "server":
        return servers(name)[0]
    if victim == "guard":
        return next(p for p in ours(name) if is_guard(p) and command_holds(p, "simulated_server"))
    mark = "raylet/raylet" if victim == "raylet" else "ray::TrialActor"
    return next(p for p in local_ray(name) if command_holds(p, mark))


def errors(home: Path) -> str:
    return (home / "stderr.txt").read_text()
