"""The page in a browser, over true studies: the shell, the list of studies, a study."""

from __future__ import annotations

import json
import random
import re
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from autotuner.api.tokens import Role, issue, token_file
from autotuner.report import words
from autotuner.report.summary import SEEN
from autotuner.study.files import STUDY_LOG
from autotuner.study.metrics import METRICS
from autotuner.study.study import StudyState
from autotuner.study.trial import TrialState
from tests import pagehost
from tests.pagehost import Hosted, Watched, chromium, hosted, violations, watched

pytestmark = pytest.mark.slow

PARETO = "/studies/qwen3-8b-throughput-and-latency"
LIMITS = "/studies/qwen3-30b-moe-limits"
TABLE = "/studies/a-search-in-a-table"
PRIOR = "/studies/qwen3-8b-with-a-prior"
VIEWS = (
    *("/studies", PARETO, LIMITS, TABLE, PRIOR),
    *("/studies/running-now", "/studies/lost-its-driver", "/studies/nothing-is-fast-enough"),
    *("/studies/cancelled-halfway", "/studies/not-started-yet"),
)
SIZES = {"phone": (360, 740), "wide": (1920, 1080)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    """Studies of every standing; tests that change one make their own."""
    with hosted(tmp_path_factory.mktemp("page"), requests_per_second=1000) as made:
        pagehost.fill(made.service)
        yield made


@pytest.fixture
def seen(browser: Browser, host: Hosted) -> Iterator[Watched]:
    with watched(browser, host.url) as page:
        yield page


def asked(host: Hosted, address: str) -> Any:
    """The service's own answer, to hold against what is shown."""
    with urllib.request.urlopen(f"{host.url}/v1/{address}", timeout=30) as answer:
        return json.load(answer)


# Every view


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_a_view_has_no_complaints_and_can_be_used_by_all(
    browser: Browser, host: Hosted, view: str, dark: bool
) -> None:
    with watched(browser, host.url, dark=dark) as seen:
        page = seen.go(view)
        expect(page.locator("main .waiting")).to_have_count(0)
        assert violations(page) == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("view", ["/studies", PARETO, LIMITS, "/studies/running-now"])
def test_a_view_fits_every_width(browser: Browser, host: Hosted, view: str, size: str) -> None:
    width, height = SIZES[size]
    with watched(browser, host.url, width=width, height=height) as seen:
        page = seen.go(view)
        expect(page.locator("main .waiting")).to_have_count(0)
        wide, room = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= room


WORDY = "w" * 63
"""As long as a name may be."""


@pytest.fixture
def wordy(host: Hosted) -> Iterator[None]:
    """A failed study whose every text is long, and has a word that is; no other test sees it."""
    said = "no trial met it: " + "x" * 200 + " of the log" * 40
    content = pagehost.example_content(
        name=WORDY, description="y" * 150 + " so many words" * 80, limits={"trials": 3, "hours": 1}
    )
    pagehost.replayed(host.service, content, ended=datetime.now(UTC) - timedelta(hours=5))
    host.service.studies.store.set_state(WORDY, StudyState.FAILED, reason=said)
    yield
    host.service.studies.delete(WORDY)


@pytest.mark.usefixtures("wordy")
@pytest.mark.parametrize("width", [390, 1280, 1440])
@pytest.mark.parametrize(
    "view",
    ["/studies", f"/studies/{WORDY}", f"/studies/{WORDY}/trials/1", f"/timeline?study={WORDY}"],
)
def test_long_words_do_not_make_a_view_wide(
    browser: Browser, host: Hosted, view: str, width: int
) -> None:
    with watched(browser, host.url, width=width) as seen:
        page = seen.go(view)
        expect(page.locator("main .waiting")).to_have_count(0)
        expect(page.locator("main")).to_contain_text(WORDY)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.usefixtures("wordy")
@pytest.mark.parametrize("width", [1280, 1440, 1920])
def test_long_texts_leave_room_in_the_list(browser: Browser, host: Hosted, width: int) -> None:
    with watched(browser, host.url, width=width) as seen:
        page = seen.go("/studies")
        wordy = row(page, WORDY)
        expect(wordy.locator("th small")).to_have_attribute("title", re.compile("so many words$"))
        high, created, actions = wordy.evaluate(
            """(row) => {
                const at = (place) => row.querySelector(place).getBoundingClientRect();
                const high = row.getBoundingClientRect().height;
                return [high, at("td:nth-last-child(2) span").right, at(".row-actions").left];
            }"""
        )
        assert high < 170  # four lines of the name, at most
        assert created <= actions


def test_the_policy_is_strict(host: Hosted) -> None:
    with urllib.request.urlopen(host.url, timeout=30) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy


# The words are those of the command line


def in_page(seen: Watched, function: str, arguments: list[Any]) -> list[Any]:
    seen.go("/studies")
    found: list[Any] = seen.page.evaluate(
        "async ([name, all]) => { const words = await import('./static/words.js');"
        " return all.map((each) => words[name](...each)); }",
        [function, arguments],
    )
    return found


def some_numbers() -> list[float]:
    drawn = random.Random(5)
    plain = [0, 1, 2, 12, 99.95, 100, 999.5, 1000, 0.5, 2.5, 100.5, 101.5, 0.0005, 0.9995, 0.9994]
    return [*plain, *(drawn.choice([1, -1]) * 10 ** drawn.uniform(-6, 6) for _ in range(300))]


@pytest.mark.parametrize("unit", ["", "s", "share", "tok/s"])
def test_quantities_are_said_as_on_the_command_line(seen: Watched, unit: str) -> None:
    numbers = some_numbers()
    assert in_page(seen, "quantity", [[each, unit] for each in numbers]) == [
        words.quantity(each, unit) for each in numbers
    ]


def test_gains_intervals_and_durations_are_too(seen: Watched) -> None:
    numbers = some_numbers()
    assert in_page(seen, "percent", [[each] for each in numbers]) == [
        words.percent(each) for each in numbers
    ]
    pairs = list(zip(numbers, [each + 0.3 for each in numbers], strict=True))
    assert in_page(seen, "span", [list(pair) for pair in pairs]) == [
        words.span(*pair) for pair in pairs
    ]
    positive = [abs(each) for each in numbers]
    assert in_page(seen, "duration", [[each] for each in positive]) == [
        words.duration(each) for each in positive
    ]


def test_metrics_have_the_names_units_and_directions_of_the_domain(seen: Watched) -> None:
    names = [[name] for name in METRICS]
    assert in_page(seen, "title", names) == [words.title(name) for name in METRICS]
    assert in_page(seen, "unitOf", names) == [words.unit_of(name) for name in METRICS]
    assert in_page(seen, "betterOf", names) == [each.better.value for each in METRICS.values()]
    telemetry = [[name] for name in SEEN]
    assert in_page(seen, "title", telemetry) == [title for title, _ in SEEN.values()]
    assert in_page(seen, "unitOf", telemetry) == [unit for _, unit in SEEN.values()]


def test_times_are_in_the_zone_of_the_service(seen: Watched) -> None:
    stored = ["2026-11-22T11:30:00.000+00:00", "2026-07-01T23:15:00.000+00:00"]
    zone = ZoneInfo("Europe/Berlin")
    found = [each.replace("\u00a0", " ") for each in in_page(seen, "moment", [[s] for s in stored])]
    assert found == [words.moment(each, zone) for each in stored]


# The list


def row(page: Page, name: str) -> Any:
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def test_the_list_says_how_each_study_stands(seen: Watched, host: Hosted) -> None:
    page = seen.go("/studies")
    for each in asked(host, "studies")["items"]:
        shown = row(page, each["name"])
        expect(shown.locator(".state")).to_contain_text(each["state"].lower())
        expect(shown.locator(".block")).to_have_count(len(each["blocks"]))
        if each["gain"] is not None:
            expect(shown).to_contain_text(words.percent(each["gain"]))
    pareto = row(page, "qwen3-8b-throughput-and-latency")
    expect(pareto.locator(".more")).to_have_text("+11")
    expect(pareto.get_by_role("img")).to_have_attribute("aria-label", "Trials: 61 complete")


def test_it_is_filtered_and_sorted_and_the_address_keeps_it(seen: Watched) -> None:
    page = seen.go("/studies")
    page.get_by_label("State").select_option("FAILED")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_label("State").select_option("")
    page.get_by_label("Engine").select_option("sglang")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_label("Engine").select_option("")
    page.get_by_role("button", name="Study").click()
    expect(page.locator("tbody th a").first).to_have_text("a-search-in-a-table")
    expect(page.get_by_role("columnheader", name="Study")).to_have_attribute(
        "aria-sort", "ascending"
    )
    page.get_by_label("Find by name").fill("qwen3")
    expect(page.locator("tbody tr")).to_have_count(3)
    assert "sort=name" in page.url
    assert "q=qwen3" in page.url
    page.reload()
    expect(page.locator("tbody tr")).to_have_count(3)
    page.get_by_label("Find by name").fill("no such study")
    expect(page.get_by_text("No study is like that")).to_be_visible()


def test_what_is_pressed_is_there_until_it_is_let_go(seen: Watched) -> None:
    """Else a click is lost where the list is drawn anew in the middle of it."""
    page = seen.go("/studies")
    shown = {"total": 0}

    def another(route: Route) -> None:
        answer = route.fetch()
        shown["total"] += 1
        route.fulfill(response=answer, json={**answer.json(), "total": 900 + shown["total"]})

    page.route("**/v1/studies?**", another)
    expect(page.get_by_role("status").filter(has_text="studies")).to_contain_text("90")
    drawn = shown["total"]
    page.get_by_role("button", name="Study", exact=True).hover()
    page.mouse.down()
    page.wait_for_timeout(4000)  # the list is asked for every three seconds
    assert shown["total"] > drawn
    page.mouse.up()
    expect(page.get_by_role("columnheader", name="Study")).to_have_attribute(
        "aria-sort", "ascending"
    )
    page.unroute("**/v1/studies?**")


def test_an_empty_list_says_what_to_do(browser: Browser, tmp_path: Path) -> None:
    with hosted(tmp_path) as empty, watched(browser, empty.url) as seen:
        page = seen.go("/studies")
        expect(page.get_by_text("There is no study yet")).to_be_visible()
        expect(page.locator("main pre")).to_contain_text(f"{empty.url}/v1/studies?start=true")
        expect(page.locator("main").get_by_role("link", name="New study").first).to_be_visible()
        assert violations(page) == []


def menu(page: Page, name: str) -> Any:
    page.get_by_role("button", name=f"Actions for {name}", exact=True).click()
    return page.get_by_role("menu")


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("not-started-yet", ["Start", "Edit", "Duplicate", "Delete"]),
        ("running-now", ["Cancel", "Duplicate"]),
        ("cancelled-halfway", ["Resume", "Restart", "Edit", "Duplicate", "Delete"]),
        ("lost-its-driver", ["Resume", "Cancel", "Restart", "Edit", "Duplicate", "Delete"]),
        ("a-search-in-a-table", ["Restart", "Edit", "Duplicate", "Delete"]),
    ],
)
def test_actions_are_those_that_the_standing_allows(
    seen: Watched, name: str, labels: list[str]
) -> None:
    page = seen.go("/studies")
    items = menu(page, name).get_by_role("menuitem")
    expect(items).to_have_text(labels)
    page.keyboard.press("ArrowDown")
    expect(items.nth(1)).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("menu")).to_have_count(0)
    expect(page.get_by_role("button", name=f"Actions for {name}", exact=True)).to_be_focused()


def test_a_study_is_started_cancelled_and_deleted_from_the_list(
    seen: Watched, host: Hosted
) -> None:
    pagehost.waiting(host.service, "to-be-started")
    page = seen.go("/studies")
    page.get_by_role("button", name="Start to-be-started").click()
    expect(row(page, "to-be-started").locator(".state")).to_contain_text("starting")
    assert [study for study, _ in host.runs.started] == ["to-be-started"]

    page.get_by_role("button", name="Cancel to-be-started").click()
    asks = page.get_by_role("dialog", name="Cancel to-be-started?")
    expect(asks.get_by_role("button", name="Let it run")).to_be_focused()
    page.keyboard.press("Escape")
    expect(asks).to_have_count(0)
    assert host.runs.stopped == []
    page.get_by_role("button", name="Cancel to-be-started").click()
    page.get_by_role("button", name="Cancel the study").click()
    expect(row(page, "to-be-started").locator(".state")).to_contain_text("cancelled")
    assert len(host.runs.stopped) == 1

    menu(page, "to-be-started").get_by_role("menuitem", name="Delete").click()
    page.get_by_role("button", name="Delete the study").click()
    expect(row(page, "to-be-started")).to_have_count(0)
    expect(page.get_by_role("status").filter(has_text="deleted")).to_be_visible()
    assert "to-be-started" not in host.service.studies.store.names()


def test_a_refusal_is_shown_in_the_servers_words(seen: Watched, host: Hosted) -> None:
    pagehost.waiting(host.service, "changed-meanwhile")
    page = seen.go("/studies")
    expect(page.get_by_role("button", name="Start changed-meanwhile")).to_be_visible()
    store = host.service.studies.store
    page.route("**/v1/studies?**", lambda route: route.abort())  # the list grows old
    store.set_state("changed-meanwhile", StudyState.CANCELLED)
    page.get_by_role("button", name="Start changed-meanwhile").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("only one that is PENDING can be started")
    alert.get_by_role("button", name="Close this message").click()
    expect(alert).to_have_count(0)
    host.service.studies.delete("changed-meanwhile")
    seen.excuse("409")
    seen.excuse("ERR_FAILED")


def test_the_list_follows_what_runs(seen: Watched, host: Hosted) -> None:
    page = seen.go("/studies")
    expect(row(page, "running-now").locator(".block.DEPLOYING")).to_have_count(1)
    store = host.service.studies.store
    trial = next(t for t in store.trials("running-now") if t.state is TrialState.DEPLOYING)
    store.save("running-now", replace(trial, state=TrialState.BENCHMARKING))
    expect(row(page, "running-now").locator(".block.DEPLOYING")).to_have_count(0)
    store.save("running-now", trial)


# A study


def test_a_verdict_and_the_command_that_is_copied(seen: Watched, host: Hosted) -> None:
    report = asked(host, "studies/a-search-in-a-table/report")
    page = seen.go(TABLE)
    expect(page.locator(".verdict .sentence")).to_have_text(report["verdict"]["statement"])
    for label, form in [("Command", "command"), ("Docker", "docker"), ("Compose", "compose")]:
        page.get_by_role("button", name=label, exact=True).click()
        expect(page.get_by_role("button", name=label, exact=True)).to_have_attribute(
            "aria-pressed", "true"
        )
        page.get_by_role("button", name=f"Copy the {form}").click()
        address = f"{host.url}/v1/studies/a-search-in-a-table/export?format={form}"
        with urllib.request.urlopen(address, timeout=30) as answer:
            expected = answer.read().decode().rstrip()
        page.wait_for_function(
            "async (expected) => (await navigator.clipboard.readText()) === expected", arg=expected
        )


@pytest.mark.parametrize(
    ("view", "says"),
    [
        ("/studies/nothing-is-fast-enough", "No trial met every constraint."),
        (PARETO, "reaches"),
        ("/studies/running-now", "reaches so far"),
    ],
)
def test_without_finals_it_is_said_what_was_measured_once(
    seen: Watched, view: str, says: str
) -> None:
    page = seen.go(view)
    expect(page.locator(".verdict .sentence")).to_contain_text(says)


def chart(page: Page, heading: str) -> Any:
    return page.get_by_role("figure", name=heading)


def test_charts_have_their_numbers_as_tables(seen: Watched, host: Hosted) -> None:
    report = asked(host, "studies/qwen3-8b-throughput-and-latency/report")
    page = seen.go(PARETO)
    rows = {
        "Objective, trial after trial": len(report["trials"]),
        "Load points": sum(len(trial["load_points"]) for trial in report["trials"]),
        "Pareto front": len(report["front"]),
        "What moves output throughput per GPU": len(report["importance"]),
    }
    for heading, count in rows.items():
        figure = chart(page, heading)
        expect(figure.get_by_role("img")).to_have_attribute("aria-label", re.compile("table"))
        figure.locator("summary").click()
        expect(figure.locator("tbody tr")).to_have_count(count)
    expect(chart(page, "Parameters and objectives")).to_be_visible()
    expect(chart(page, "Predicted and measured")).to_have_count(0)


def test_a_tip_tells_what_is_set_otherwise_than_the_best(seen: Watched, host: Hosted) -> None:
    report = asked(host, "studies/qwen3-8b-throughput-and-latency/report")
    by_number = {trial["number"]: trial for trial in report["trials"]}
    best = by_number[report["best"]]["parameters"]
    page = seen.go(PARETO)
    figure = chart(page, "Objective, trial after trial")
    figure.locator("canvas").wait_for()
    number = figure.locator(".canvas").evaluate(
        """async (node) => {
            const { getInstanceByDom } = await import('./static/vendor/echarts.esm.min.js');
            const drawn = getInstanceByDom(node);
            const { series } = drawn.getOption();
            const seriesIndex = series.findIndex((each) => each.name === 'other trials');
            drawn.dispatchAction({ type: 'showTip', seriesIndex, dataIndex: 0 });
            return series[seriesIndex].data[0].trial.number;
        }"""
    )
    parameters = by_number[number]["parameters"]
    different = {name for name in parameters if parameters[name] != best.get(name)}
    lines = page.locator(".tip li").all_inner_texts()
    assert sorted(lines) == sorted(f"{n}: {parameters[n]} (best: {best[n]})" for n in different)
    expect(page.locator(".tip strong")).to_have_text(f"Trial {number}")


def test_a_click_on_a_mark_opens_its_trial(seen: Watched) -> None:
    page = seen.go(PARETO)
    figure = chart(page, "Objective, trial after trial")
    figure.locator("canvas").wait_for()
    place = figure.locator(".canvas").evaluate(
        """async (node) => {
            const { getInstanceByDom } = await import('./static/vendor/echarts.esm.min.js');
            const drawn = getInstanceByDom(node);
            const series = drawn.getOption().series.findIndex((each) => each.name === 'best');
            const at = drawn.getOption().series[series].data[0].value;
            return drawn.convertToPixel({ seriesIndex: series }, at);
        }"""
    )
    figure.locator(".canvas").click(position={"x": place[0], "y": place[1]})
    page.wait_for_url(re.compile(r"/trials/\d+$"))
    seen.complaints.clear()  # the view of a trial has tests of its own


def test_the_axes_of_the_load_points_stay_chosen(seen: Watched) -> None:
    page = seen.go(PARETO)
    figure = chart(page, "Load points")
    expect(figure.get_by_label("x", exact=True)).to_have_value("user_throughput")
    expect(figure.get_by_label("y", exact=True)).to_have_value("output_throughput_per_gpu")
    figure.get_by_label("x", exact=True).select_option("ttft_mean")
    figure.locator("summary").click()
    expect(figure.get_by_role("columnheader", name="TTFT mean")).to_be_visible()
    page.reload()
    expect(figure.get_by_label("x", exact=True)).to_have_value("ttft_mean")


def test_failures_are_grouped_and_service_levels_have_words(seen: Watched, host: Hosted) -> None:
    report = asked(host, "studies/qwen3-30b-moe-limits/report")
    page = seen.go(LIMITS)
    groups = page.locator("section", has_text="No answer, by class").locator(".groups > li")
    expect(groups).to_have_count(len(report["failures"]))
    expect(groups.first).to_contain_text(report["failures"][0]["failure"])
    expect(groups.first).to_contain_text(f"{report['failures'][0]['count']}\u00a0trials")
    for severity in {s for t in report["trials"] for s in t["severity"].values()}:
        count = sum(list(t["severity"].values()).count(severity) for t in report["trials"])
        badges = page.locator("tbody .badge", has_text=severity)
        expect(badges).to_have_count(count)


def test_predictions_are_held_against_measurements(seen: Watched) -> None:
    page = seen.go(PRIOR)
    expect(chart(page, "Predicted and measured")).to_contain_text("rank correlation")
    expect(page.get_by_role("columnheader", name="Predicted")).to_be_visible()
    expect(page.get_by_role("table", name="Finals").locator("tbody tr")).to_have_count(3)


def trials(page: Page) -> Any:
    return page.get_by_role("table", name="Trials", exact=True)


def test_the_trials_are_sorted_filtered_and_opened(seen: Watched, host: Hosted) -> None:
    report = asked(host, "studies/qwen3-8b-throughput-and-latency/report")
    page = seen.go(PARETO)
    trials(page).get_by_role("button", name="output throughput per GPU").click()
    objective = "output_throughput_per_gpu"
    ordered = sorted(report["trials"], key=lambda trial: -trial["objectives"][objective])
    expect(trials(page).locator("tbody th a").first).to_have_text(str(ordered[0]["number"]))
    page.get_by_label("Find trials").fill("tensor-parallel-size=8 kv-cache-dtype=fp8")
    expected = [
        trial
        for trial in report["trials"]
        if trial["parameters"].get("tensor-parallel-size") == 8
        and trial["parameters"].get("kv-cache-dtype") == "fp8"
    ]
    expect(trials(page).locator("tbody tr")).to_have_count(len(expected))
    page.get_by_label("Trial state").select_option("FAILED")
    expect(page.get_by_text("No trial is like that.")).to_be_visible()


def test_a_row_opens_its_trial(seen: Watched) -> None:
    page = seen.go(TABLE)
    trials(page).locator("tbody tr").nth(3).locator("td").nth(2).click()
    page.wait_for_url(re.compile(r"#/studies/a-search-in-a-table/trials/3$"))
    seen.complaints.clear()


def test_repeats_are_shown_when_asked_for(seen: Watched, host: Hosted) -> None:
    report = asked(host, "studies/a-search-in-a-table/report")
    page = seen.go(TABLE)
    searched = sum(trial["searched"] for trial in report["trials"])
    expect(trials(page).locator("tbody tr")).to_have_count(searched)
    page.get_by_label("repeats of the finals").check()
    expect(trials(page).locator("tbody tr")).to_have_count(len(report["trials"]))


@pytest.mark.parametrize("form", ["CSV", "JSON"])
def test_the_trials_are_saved(seen: Watched, host: Hosted, form: str) -> None:
    page = seen.go(TABLE)
    with page.expect_download() as download:
        page.get_by_role("button", name=form, exact=True).click()
    assert download.value.suggested_filename == f"a-search-in-a-table-trials.{form.lower()}"
    content = download.value.path().read_text(encoding="utf-8")
    report = asked(host, "studies/a-search-in-a-table/report")
    if form == "JSON":
        found = json.loads(content)
        assert [each["number"] for each in found] == [t["number"] for t in report["trials"]]
    else:
        assert content.splitlines()[0].startswith("number")
        assert len(content.splitlines()) == len(report["trials"]) + 1


# What changes while one looks


def test_a_study_is_followed_by_its_events(seen: Watched, host: Hosted) -> None:
    pagehost.running(host.service, "followed")
    page = seen.go("/studies/followed")
    bar = page.get_by_role("progressbar", name="Trials of the search")
    expect(bar).to_have_attribute("aria-valuenow", "12")
    expect(page.get_by_text(re.compile("about .* left"))).to_be_visible()
    store = host.service.studies.store
    under_way = next(t for t in store.trials("followed") if t.state is TrialState.BENCHMARKING)
    answer = store.trials("followed")[3]
    ended = replace(
        answer,
        number=under_way.number,
        parameters=under_way.parameters,
        objectives={"output_throughput": 9e6},
    )
    store.save("followed", ended)
    expect(bar).to_have_attribute("aria-valuenow", "13")
    expect(page.locator(".verdict .sentence")).to_contain_text(f"Trial {under_way.number} reaches")
    store.set_state("followed", StudyState.COMPLETE, driver="", ended_at=answer.ended_at)
    expect(page.locator(".page-head .state")).to_contain_text("complete")
    expect(page.get_by_role("button", name="Restart")).to_be_visible()
    host.service.studies.delete("followed")
    seen.excuse("404")


def test_a_study_whose_last_event_was_not_read_is_read_again(seen: Watched, host: Hosted) -> None:
    pagehost.running(host.service, "unheard")
    page = seen.page
    page.clock.install()
    seen.go("/studies/unheard")
    banner = page.locator(".offline")
    expect(page.get_by_role("heading", name="So far", exact=True)).to_be_visible()
    page.route("**/v1/studies/unheard", lambda route: route.abort())
    host.service.studies.store.set_state("unheard", StudyState.COMPLETE, driver="")
    page.wait_for_timeout(500)  # the event is on its way, through the service's own clock
    page.clock.run_for(1000)
    expect(banner).to_contain_text("The service does not answer")
    page.unroute("**/v1/studies/unheard")
    page.clock.run_for(4000)
    expect(page.get_by_role("heading", name="Answer", exact=True)).to_be_visible()
    expect(page.locator(".page-head .state")).to_contain_text("complete")
    expect(banner).to_be_hidden()
    host.service.studies.delete("unheard")
    seen.excuse("ERR_FAILED")
    seen.excuse("404")


def test_a_study_that_is_restarted_begins_anew_before_ones_eyes(
    seen: Watched, host: Hosted
) -> None:
    content = pagehost.example_content(name="once-more", limits={"trials": 4, "hours": 1})
    pagehost.replayed(host.service, content, ended=pagehost.NOW - timedelta(hours=30))
    page = seen.go("/studies/once-more")
    expect(trials(page)).to_be_visible()
    page.get_by_role("button", name="Restart").click()
    asks = page.get_by_role("dialog", name="Restart once-more?")
    expect(asks).to_contain_text("cannot be undone")
    asks.get_by_role("button", name="Delete the results and restart").click()
    expect(page.locator(".page-head .state")).to_contain_text("starting")
    expect(page.get_by_text("No trial yet")).to_be_visible()
    expect(page.get_by_role("figure")).to_have_count(0)
    expect(page.get_by_role("heading", name="Best configuration")).to_have_count(0)
    assert [study for study, _ in host.runs.started][-1] == "once-more"
    host.service.studies.cancel("once-more")
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    host.service.studies.delete("once-more")
    seen.excuse("404")


def test_time_goes_on_without_events(seen: Watched, host: Hosted) -> None:
    page = seen.page
    page.clock.install()
    answer = asked(host, "studies/running-now")
    page.route(
        "**/v1/studies/running-now",
        lambda route: route.fulfill(json={**answer, "eta": 4000.0, "seconds": 7300.0}),
    )
    seen.go("/studies/running-now")
    progress = page.get_by_role("region", name="Progress")
    expect(progress).to_contain_text(re.compile(r"about 1\sh\s6\smin left"))
    page.unroute("**/v1/studies/running-now")
    page.route(
        "**/v1/studies/running-now",
        lambda route: route.fulfill(json={**answer, "eta": None, "seconds": 10900.0}),
    )
    page.clock.run_for(11_000)
    expect(progress).to_contain_text(re.compile(r"duration\s*3\sh\s1\smin"))
    expect(progress).not_to_contain_text("left")
    expect(progress.get_by_role("progressbar")).to_be_visible()


def test_without_a_budget_nothing_is_said_of_what_is_left(seen: Watched, host: Hosted) -> None:
    page = seen.page
    unknown = {"budget": None, "eta": None}
    answer = {**asked(host, "studies/running-now"), **unknown}
    page.route("**/v1/studies/running-now", lambda route: route.fulfill(json=answer))
    found = asked(host, "studies")
    rows = {**found, "items": [{**each, **unknown} for each in found["items"]]}
    page.route("**/v1/studies?*", lambda route: route.fulfill(json=rows))
    seen.go("/studies/running-now")
    progress = page.get_by_role("region", name="Progress")
    expect(progress).to_contain_text(re.compile(r"12\strials"))
    expect(progress.get_by_role("progressbar")).to_have_count(0)
    expect(progress).not_to_contain_text(re.compile("left|null|NaN|undefined"))
    seen.go("/studies")
    expect(row(page, "running-now")).to_contain_text(re.compile(r"12\strials"))
    expect(page.locator("main")).not_to_contain_text(re.compile("null|NaN|undefined"))


def test_the_log_of_a_study_is_followed_while_it_is_open(seen: Watched, host: Hosted) -> None:
    page = seen.go("/studies/running-now")
    page.get_by_text("Log of the study", exact=True).click()
    log = page.get_by_role("log", name="Log of the study")
    expect(log).to_contain_text("line 39 of the study")
    file = Path(host.service.studies.store.study("running-now").directory) / STUDY_LOG
    said = file.read_text()
    file.write_text(f"{said}and it goes on\n")
    expect(log).to_contain_text("and it goes on")
    page.get_by_label("Search the log").fill("LINE 3")
    expect(page.locator(".found")).to_have_text("1 of 11")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download", exact=True).click()
    assert saved.value.suggested_filename == "running-now.log"
    file.write_text(said)
    seen.go("/studies/not-started-yet")
    page.get_by_text("Log of the study", exact=True).click()
    expect(page.locator(".log-state")).to_contain_text("Nothing has been said yet.")
    assert violations(page) == []


@pytest.mark.parametrize("how", ["deleted", "renamed"])
def test_a_study_that_goes_while_one_looks(seen: Watched, host: Hosted, how: str) -> None:
    pagehost.waiting(host.service, "soon-gone")
    page = seen.go("/studies/soon-gone")
    if how == "deleted":
        host.service.studies.delete("soon-gone")
    else:
        job = pagehost.job_for(host.service, pagehost.example_content(name="another-name"))
        host.service.studies.edit("soon-gone", job)
    expect(page.get_by_role("alert")).to_contain_text("soon-gone is no more")
    expect(page.locator(".page-head").get_by_role("button")).to_have_count(0)
    if how == "renamed":
        host.service.studies.delete("another-name")
    seen.excuse("404")


def test_a_study_that_is_not_there(seen: Watched) -> None:
    page = seen.go("/studies/no-such-study")
    expect(page.get_by_role("alert")).to_contain_text("there is no study named 'no-such-study'")
    expect(page.locator("main").get_by_role("link", name="All studies")).to_be_visible()
    seen.excuse("404")


@pytest.mark.parametrize(
    ("address", "says", "link"),
    [
        ("/studies/100%", "there is no study named '100%'", "All studies"),
        (f"{TABLE}/trials/abc", "There is no trial 'abc'", "The study"),
        (f"{TABLE}/trials/999", "no trial 999", "The study"),
        ("/edit/no-such-study", "there is no study named 'no-such-study'", "All studies"),
    ],
)
def test_an_address_of_nothing_says_so_and_where_to_go(
    seen: Watched, address: str, says: str, link: str
) -> None:
    page = seen.page
    page.goto(f"{seen.url}/#{address}")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("There is no such thing")
    expect(alert).to_contain_text(says)
    expect(alert.get_by_role("button", name="Try again")).to_have_count(0)
    expect(page.locator("main").get_by_role("link", name=link)).to_be_visible()
    seen.excuse("404")


def test_a_service_that_does_not_answer(seen: Watched) -> None:
    page = seen.go("/studies")
    page.context.set_offline(True)
    page.get_by_label("State").select_option("FAILED")
    banner = page.locator(".offline")
    expect(banner).to_contain_text("The service does not answer")
    page.context.set_offline(False)
    page.get_by_label("State").select_option("COMPLETE")
    expect(banner).to_be_hidden()
    expect(page.locator("tbody tr")).to_have_count(4)
    seen.excuse("ERR_INTERNET_DISCONNECTED")


def followed(seen: Watched, answers: list[dict[str, Any]]) -> tuple[list[Any], list[str | None]]:
    """What `follow` of api.js hands on, and the Last-Event-ID of each of its requests."""
    asked_after: list[str | None] = []

    def answer(route: Route) -> None:
        asked_after.append(route.request.headers.get("last-event-id"))
        route.fulfill(**answers[len(asked_after) - 1])

    page = seen.go("/studies")
    page.route("**/v1/made-up", answer)
    events = page.evaluate(
        """async () => {
            const { follow } = await import('./static/api.js');
            const found = [];
            await follow('made-up', { onEvent: (each) => void found.push(each) });
            return found;
        }"""
    )
    return events, asked_after


def stream(text: str) -> dict[str, Any]:
    return {"status": 200, "content_type": "text/event-stream", "body": text}


def test_a_stream_that_breaks_is_taken_up_after_the_last_event(seen: Watched) -> None:
    events, asked_after = followed(
        seen,
        [
            stream(': hello\n\nid: 7\nevent: lines\ndata: ["a",\ndata: "b"]\n\nid: 8\ndata: lost'),
            {"status": 503, "content_type": "application/problem+json", "body": "{}"},
            stream("id:9\r\nevent:lines\r\ndata:text\r\n\r\n\nevent: end\ndata: {}\n\n"),
        ],
    )
    assert [(each["id"], each["event"], each["data"]) for each in events] == [
        ("7", "lines", ["a", "b"]),
        ("9", "lines", "text"),
        ("9", "end", {}),
    ]
    assert asked_after == [None, "7", "7"]
    seen.excuse("503")


# Who one is


def test_a_token_is_asked_for_and_a_viewer_changes_nothing(
    browser: Browser, tmp_path: Path
) -> None:
    from autotuner.settings import Settings

    token = issue(token_file(Settings(_env_file=None, home=tmp_path)), "ada", Role.VIEWER)
    with hosted(tmp_path) as closed, watched(browser, closed.url) as seen:
        pagehost.waiting(closed.service, "mine")
        page = seen.page
        page.goto(closed.url)
        asks = page.get_by_role("dialog", name="A token, please")
        asks.get_by_label("Token").fill("wrong")
        page.keyboard.press("Enter")
        expect(asks).to_have_count(1)
        asks.get_by_label("Token").fill(token)
        page.keyboard.press("Enter")
        expect(page.get_by_role("link", name="mine", exact=True)).to_be_visible()
        expect(page.locator("#who")).to_contain_text("ada, viewer")
        expect(page.get_by_role("button", name="Actions for mine")).to_have_count(0)
        page.get_by_role("link", name="mine", exact=True).click()
        expect(page.get_by_role("heading", name="mine")).to_be_visible()
        expect(page.get_by_role("button", name="Delete")).to_have_count(0)
        assert token not in page.content()
        assert page.evaluate("Object.keys(localStorage).filter((k) => k.includes('token'))") == []
        seen.excuse("401")


# The shell


def test_colours_are_switched_and_stay_so(seen: Watched) -> None:
    page = seen.go("/studies")
    page.get_by_role("button", name="Colours: as the system").click()
    page.get_by_role("button", name="Colours: light").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.get_by_role("button", name="Colours: dark")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(14, 17, 22)"


def test_the_keyboard_reaches_the_content_first(seen: Watched) -> None:
    page = seen.go("/studies")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#view")).to_be_focused()
    expect(page.get_by_role("heading", name="Studies")).to_be_visible()


def test_addresses_go_back_and_forth_and_wrong_ones_go_home(seen: Watched) -> None:
    page = seen.go("/studies")
    page.get_by_role("link", name="a-search-in-a-table").click()
    expect(page.get_by_role("heading", name="a-search-in-a-table")).to_be_visible()
    expect(page).to_have_title("a-search-in-a-table (complete) · autotuner")
    page.go_back()
    expect(page.get_by_role("heading", name="Studies", exact=True)).to_be_visible()
    page.go_forward()
    expect(page.get_by_role("heading", name="a-search-in-a-table")).to_be_visible()
    page.goto(f"{seen.url}/#/no/such/view")
    expect(page.get_by_role("heading", name="Studies", exact=True)).to_be_visible()
    assert page.url.endswith("#/studies")


def test_what_a_study_says_is_text_never_html(seen: Watched, host: Hosted) -> None:
    evil = "<img src=x onerror=\"document.title='caught'\"><b>bold</b>"
    content = pagehost.example_content(name="evil", description=evil)
    study = pagehost.replayed(host.service, content, ended=pagehost.NOW - timedelta(hours=20))
    host.service.studies.store.set_state("evil", StudyState.FAILED, reason=evil)
    page = seen.go("/studies")
    expect(row(page, "evil")).to_contain_text("<b>bold</b>")
    seen.go("/studies/evil")
    expect(page.locator("main .note")).to_have_text(evil)
    assert page.locator("main img, main b").count() == 0
    host.service.studies.delete(study.name)
