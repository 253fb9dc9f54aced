"""Telemetry in single numbers, and the one sentence that it makes."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from autotuner.report.page import html
from autotuner.report.summary import SEEN, summary
from autotuner.report.text import comparison_table, trials_table
from autotuner.study.study import Study, StudyState
from autotuner.study.telemetry import (
    COUNTERS,
    GAUGES,
    PREFIX_HIT_RATE,
    QUEUED,
    Levers,
    Samples,
    growth,
    summed,
    why,
)
from autotuner.study.trial import LoadPoint, Trial
from tests.builders import spec, trial

SECONDS = tuple(float(second) for second in range(9))
"""Warming up until 4, measured until 8, when the load has ended."""

LEVERS = Levers("max-num-seqs", 64, "max-num-batched-tokens", "gpu-memory-utilization")


def samples(**series: tuple[float | None, ...]) -> Samples:
    return Samples(SECONDS, series)


def test_a_gauge_has_a_mean_and_a_maximum_of_the_measured_window() -> None:
    found = summed(samples(running=(9, 9, 9, 9, 1, 2, 3, 6, 0)), window=4.0)
    assert found == {"running_mean": 3.0, "running_max": 6.0}


def test_what_follows_the_load_is_no_part_of_it() -> None:
    """The load generator writes its results for two seconds, and nothing runs."""
    seen = samples(running=(9, 9, 1, 2, 3, 6, 0, 0, 0), load_cpu=(1, 1, 0, 0, 0, 0.4, 1, 1, None))
    found = summed(seen, window=4.0)
    assert found["running_mean"] == 3.0
    assert found["load_cpu_mean"] == pytest.approx(0.1)
    assert found["load_cpu_max"] == 0.4
    idle = summed(samples(running=(0,) * 9, load_cpu=(1,) * 9), window=4.0)
    assert (idle["running_max"], idle["load_cpu_mean"]) == (0, 1), "where nothing ever ran"


def test_a_counter_is_what_it_grew_by_until_the_load_had_ended() -> None:
    found = summed(samples(preemptions=(0, 5, 10, 20, 20, 21, 24, 24, 30)), window=4.0)
    assert found == {"preemptions": 10.0}, "from the sample before the window opened"


@pytest.mark.parametrize(
    ("values", "grown"),
    [
        ((3, 3, 8), 5.0),
        ((100, 140, 7, 9), 49.0),  # started anew: what it stood at before is not lost again
        ((None, 4, None, 6), 2.0),
        ((None, 4, None), None),
        ((), None),
    ],
)
def test_a_counter_that_falls_was_started_anew(
    values: tuple[float | None, ...], grown: float | None
) -> None:
    assert growth(values) == grown


def test_the_prefix_hit_rate_is_of_tokens_and_queues_are_counted_in_samples() -> None:
    found = summed(
        samples(
            prefix_hits=(0, 0, 0, 50, 50, 60, 80, 90, 100),
            prefix_queries=(0, 0, 0, 100, 150, 200, 250, 300, 350),
            waiting=(5, 5, 5, 5, 0, 2, 0, 0, 0),
        ),
        window=4.0,
    )
    assert found["prefix_hit_rate"] == pytest.approx(50 / 250)
    assert found["queued"] == 0.25
    nothing_asked = summed(samples(prefix_hits=(0,) * 9, prefix_queries=(7,) * 9), window=4.0)
    assert "prefix_hit_rate" not in nothing_asked


def test_what_was_not_seen_is_left_out_and_gaps_count_for_nothing() -> None:
    assert summed(Samples(), window=4.0) == {}
    found = summed(
        samples(kv_usage=(None,) * 9, host_cpu=(None,) * 5 + (0.5, None, 0.7, 1.0)), window=4
    )
    assert found == pytest.approx({"host_cpu_mean": 0.6, "host_cpu_max": 0.7})


@pytest.mark.parametrize("window", [0.2, 0.0, 100.0])
def test_a_window_shorter_or_longer_than_the_samples_has_what_there_is(window: float) -> None:
    found = summed(samples(running=(1, 1, 1, 1, 1, 1, 1, 5, 0)), window=window)
    assert found["running_max"] == 5
    assert summed(Samples((0.0,), {"running": (3.0,)}), window=window)["running_max"] == 3


VALUES = st.none() | st.floats(0, 1e9)


@given(
    st.dictionaries(st.sampled_from(GAUGES + COUNTERS), st.lists(VALUES, min_size=9, max_size=9))
)
def test_a_mean_is_no_more_than_the_maximum_and_nothing_is_negative(
    series: dict[str, list[float | None]],
) -> None:
    found = summed(samples(**{name: tuple(values) for name, values in series.items()}), window=4.0)
    assert all(value is not None and value >= 0 for value in found.values())
    for name in GAUGES:
        mean, most = found.get(f"{name}_mean"), found.get(f"{name}_max")
        assert (mean is None) == (most is None)
        if mean is not None and most is not None:
            assert mean <= most * (1 + 1e-9)


def test_what_is_kept_is_json_with_a_value_or_null_for_each_second() -> None:
    kept = json.loads(json.dumps(samples(kv_usage=(None, 1 / 3, *(0.5,) * 7)).to_json()))
    assert kept["seconds"] == list(SECONDS)
    assert kept["series"]["kv_usage"][:3] == [None, 0.333333, 0.5]


# The sentence.


def point(concurrency: int = 64, *, probe: bool = False, index: int = 0, **seen: Any) -> LoadPoint:
    """A load point on a busy, healthy GPU server; `seen` replaces what was."""
    telemetry = {
        "kv_usage_max": 0.4,
        "running_mean": float(concurrency),
        "running_max": float(concurrency),
        "waiting_max": 0.0,
        "queued": 0.0,
        "preemptions": 0.0,
        "gpu_utilisation_mean": 0.97,
        "host_cpu_mean": 0.3,
        "load_cpu_mean": 0.2,
    }
    return LoadPoint(
        index, "D(100,20)", concurrency, 10.0, {}, probe=probe, telemetry={**telemetry, **seen}
    )


def said(*points: LoadPoint, levers: Levers = LEVERS) -> str:
    return why(points, levers)


QUEUE: dict[str, Any] = {"waiting_max": 37.0, "waiting_mean": 20.0, "queued": 1.0}
FULL_CACHE: dict[str, Any] = {
    **QUEUE,
    "kv_usage_max": 0.98,
    "running_max": 27.0,
    "running_mean": 25.0,
}
AT_ITS_MOST: dict[str, Any] = {**QUEUE, "running_max": 64.0, "running_mean": 60.0}


def test_nothing_notable_is_nothing_said() -> None:
    assert said(point()) == ""
    assert said() == ""
    assert said(LoadPoint(0, "D(1,1)", 4, 1.0, {})) == "", "where nothing was sampled"


def test_a_queue_before_a_full_kv_cache() -> None:
    assert said(point(**FULL_CACHE)) == (
        "the queue grew to 37 while the KV cache stood at 98 %: more `max-num-seqs` cannot help"
    )
    assert "cannot help" in said(point(**{**FULL_CACHE, "kv_usage_max": 0.95}))
    assert "cannot help" not in said(point(**{**FULL_CACHE, "kv_usage_max": 0.94}))
    assert said(point(kv_usage_max=0.98)) == "", "a full cache without a queue is well used"
    assert "more `max-running-requests` cannot" in said(
        point(**FULL_CACHE), levers=Levers("max-running-requests", 27)
    )


def test_a_queue_before_a_full_cache_that_also_preempts() -> None:
    assert said(point(**FULL_CACHE, preemptions=12)) == (
        "the queue grew to 37 while the KV cache stood at 98 %, and 12 sequences were preempted: "
        "more `max-num-seqs` cannot help"
    )


def test_preemptions_without_a_queue() -> None:
    assert said(point(preemptions=1.0)) == (
        "1 sequence was preempted and computed again for want of KV cache: "
        "less `max-num-seqs` or more `gpu-memory-utilization` may help"
    )
    assert said(point(preemptions=0.0)) == ""


def test_a_queue_while_as_many_run_as_may() -> None:
    assert said(point(**AT_ITS_MOST)) == (
        "up to 37 requests waited while 64 ran, as many as `max-num-seqs` allows, "
        "with the KV cache at 40 %: raise it"
    )
    assert "raise it" not in said(point(**{**AT_ITS_MOST, "running_max": 63.0}))
    # From here on there is hardly room for more.
    assert said(point(**AT_ITS_MOST, kv_usage_max=0.9)).endswith(
        "with the KV cache at 90 %: more need more `gpu-memory-utilization` too"
    )
    # Users who run in step wait for a moment, each time.
    assert said(point(**{**AT_ITS_MOST, "queued": 0.2})) == ""


def test_a_limit_that_the_engine_chose_is_seen_by_its_plateau() -> None:
    unknown = Levers("max-num-seqs", None, "max-num-batched-tokens")
    assert "raise it" in said(point(**AT_ITS_MOST), levers=unknown)
    assert said(point(**{**AT_ITS_MOST, "running_mean": 30.0}), levers=unknown) == ""


def test_a_queue_with_room_in_cache_and_batch_waits_for_its_prompts() -> None:
    waited: dict[str, Any] = {**QUEUE, "running_max": 20.0, "running_mean": 12.0}
    assert said(point(**waited)) == (
        "up to 37 requests waited while 20 of at most 64 ran with the KV cache at 40 %, so that "
        "prompts waited for their turn in a step: more `max-num-batched-tokens` may help"
    )
    # At 90 % the next prompt may not fit: then it is the cache again, or nobody knows.
    assert said(point(**{**waited, "kv_usage_max": 0.9})) == ""
    assert said(point(**{**waited, "kv_usage_max": None})) == ""


def test_an_engine_without_words_for_its_bounds_is_told_what_was_seen() -> None:
    bare = Levers(most=64)
    assert said(point(**FULL_CACHE), levers=bare).endswith("stood at 98 %")
    assert said(point(preemptions=2.0), levers=bare).endswith("for want of KV cache")
    assert said(point(**{**AT_ITS_MOST, "kv_usage_max": None}), levers=bare) == (
        "up to 37 requests waited while 64 ran"
    )


def test_a_machine_whose_cpus_are_full() -> None:
    on_a_gpu = said(point(host_cpu_mean=0.97))
    assert on_a_gpu == "the machine's CPUs were busy to 97 %: GPUs wait for what CPUs prepare"
    on_a_cpu = said(point(host_cpu_mean=0.97, gpu_utilisation_mean=None))
    assert on_a_cpu == "the machine's CPUs, on which the engine computes, were busy to 97 %"
    assert said(point(host_cpu_mean=0.94)) == ""
    assert "raise it" in said(point(**AT_ITS_MOST, host_cpu_mean=0.97)), "a queue says more"


def test_a_gpu_that_idles_while_nothing_waits() -> None:
    idle: dict[str, Any] = {"gpu_utilisation_mean": 0.4}
    assert said(point(8, **idle)) == (
        "the GPU idled 60 % of the time and nothing waited: it could serve more than 8 at once"
    )
    assert said(point(8, **idle, running_mean=3.0)) == (
        "the GPU idled 60 % of the time and nothing waited: only 3.0 of 8 requests were in the "
        "server, so the client kept it waiting"
    )
    assert said(point(8, gpu_utilisation_mean=0.6)) == ""
    assert "idled" not in said(point(8, **idle, **QUEUE))


def test_a_load_generator_at_a_full_core_goes_before_all_else() -> None:
    assert said(point(load_cpu_mean=0.99)) == (
        "the load generator was the bottleneck: it used 0.99 of a core, and what was measured "
        "is a lower bound"
    )
    assert "lower bound" in said(point(**FULL_CACHE, load_cpu_mean=0.99))
    assert said(point(load_cpu_mean=0.85)) == ""


def test_the_heaviest_load_is_looked_at_and_named_among_several() -> None:
    light, heavy = point(4, load_cpu_mean=0.99), point(64, index=1, **FULL_CACHE)
    assert said(light, heavy).startswith("at D(100,20) x 64, the queue grew to 37")
    assert said(point(4, **FULL_CACHE), point(64, index=1)) == ""
    # A probe is a part of the load, for the scheduler: it is not what was measured.
    assert said(point(64, probe=True, **FULL_CACHE), point(64, index=1)) == ""
    assert "queue" in said(point(16, probe=True, **FULL_CACHE)), "unless there is nothing else"


# As it is shown.


def report(*, telemetry: bool = True) -> dict[str, Any]:
    seen = {"kv_usage_max": 0.98, "waiting_max": 37.0, "load_cpu_mean": 0.2}
    metrics = {"output_throughput": 100.0}

    def measured(number: int, value: float, **more: Any) -> Trial:
        load = LoadPoint(0, "D(100,20)", 4, 10.0, metrics, telemetry=seen if telemetry else {})
        return trial(
            number,
            {"max-num-seqs": number} if number else {},
            objectives={"output_throughput": value},
            load_points=(load,),
            **more,
        )

    said = "<37> waited: raise `max-num-seqs`" if telemetry else ""
    study = Study(
        spec(engine={"kind": "vllm"}, space={"max-num-seqs": [1, 2]}), "/s", StudyState.COMPLETE
    )
    return summary(study, [measured(0, 100.0), measured(1, 150.0, why=said)])


def terminal(part: RenderableType | None) -> str:
    assert part is not None
    console = Console(file=StringIO(), width=160)
    console.print(part)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_sentence_stands_with_its_trial_everywhere() -> None:
    found = report()
    assert [each["why"] for each in found["trials"]] == ["", "<37> waited: raise `max-num-seqs`"]
    assert "<37> waited: raise `max-num-seqs`" in terminal(trials_table(found))
    page = html(found)
    coded = "&lt;37&gt; waited: raise <code>max-num-seqs</code>"
    assert f"<small>{coded}</small>" in page
    assert f"Trial 1: {coded}." in page


def test_what_was_seen_stands_beside_what_was_measured() -> None:
    found = report()
    lines = terminal(comparison_table(found)).splitlines()
    (line,) = [each for each in lines if "KV cache in use" in each]
    assert line.split()[-4:] == ["98.0", "%", "98.0", "%"]
    assert not any("GPU power" in each for each in lines), "what nobody saw has no line"
    assert "seen meanwhile" in html(found)
    assert "KV cache in use, most" in html(found)


def test_a_report_without_telemetry_is_as_before() -> None:
    found = report(telemetry=False)
    assert "KV cache in use" not in terminal(comparison_table(found))
    assert "seen meanwhile" not in html(found)


def test_what_is_shown_is_of_names_that_there_are() -> None:
    gauges = {f"{signal}_{end}" for signal in GAUGES for end in ("mean", "max")}
    assert set(SEEN) <= gauges | set(COUNTERS) | {QUEUED, PREFIX_HIT_RATE}
