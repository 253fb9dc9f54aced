"""A study's answer in sentences: what its finals allow to be said, or what was measured once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from autotuner.report.words import (
    ANSWERED,
    UNENDED,
    Json,
    broken,
    candidate,
    counted,
    defaults,
    listed,
    measured,
    percent,
    span,
    title,
    trial_in,
)
from autotuner.study.metrics import MAX_LOAD, METRICS
from autotuner.study.verdict import Finding, Standing

_ONE_RUN = (
    "Both were measured once (one run each): the spread of repeated runs is not in this figure."
)


ALIKE = 0.3
"""Share of the prompts' text that begins another prompt, above which it is said."""

LARGE = 0.1
"""A gain from which on it is worth finding out whether it was chance."""


@dataclass(frozen=True)
class Statement:
    """What the measurements allow us to say, and what must be said beside it."""

    sentence: str
    notes: tuple[str, ...]


def statement(summary: Json) -> Statement:
    """The study's answer: the verdict's where there were finals, else the search's."""
    study = summary["study"]
    said = _of_search(summary) if summary["verdict"] is None else _of_finals(summary)
    notes = [study["reason"]] if study["reason"] else []
    return Statement(
        said.sentence,
        (*notes, *said.notes, *_several(summary), *_alike(summary), *_at_the_edge(summary)),
    )


def _at_the_edge(summary: Json) -> Iterator[str]:
    """That the highest load allowed was borne: how far a trial could go is not known then."""
    highest = max(summary["study"]["spec"]["workload"]["concurrency"], default=0)
    searched = [each for each in summary["trials"] if each["repeat_of"] is None]
    reached = [t["number"] for t in searched if t["objectives"].get(MAX_LOAD) == highest]
    if not reached:
        return
    who = f"{len(reached)} trials" if len(reached) > 1 else f"Trial {reached[0]}"
    why = "tell them apart" if len(reached) > 1 else "see how much more it bears"
    yield (
        f"{who} bore {highest} requests in flight, the highest that the study allows: raise the "
        f"upper concurrency to {why}."
    )


def _alike(summary: Json) -> Iterator[str]:
    """A warning where the load's prompts begin so much alike that a prefix cache shapes it."""
    points: list[Json] = [p for trial in summary["trials"] for p in trial["load_points"]]
    most = max(points, key=lambda p: p["metrics"].get("prompt_overlap") or 0.0, default={})
    overlap = most.get("metrics", {}).get("prompt_overlap") or 0.0
    if overlap > ALIKE:
        yield (
            f"The prompts of {most['name']} are too alike: {overlap:.0%} of their text begins "
            "another prompt too, so a prefix cache makes this load look lighter than it may be "
            "in service."
        )


def _of_finals(summary: Json) -> Statement:
    finals = _Finals(summary)
    finding = Finding(summary["verdict"]["finding"])
    if finding is Finding.UNDECIDED:
        once = _of_search(summary)
        return Statement(finals.undecided(), (once.sentence, *once.notes, *finals.notes()))
    sentence = {
        Finding.GAIN: finals.gain,
        Finding.NO_GAIN: finals.no_gain,
        Finding.NO_BASELINE: finals.no_baseline,
        Finding.NO_FINALIST: finals.no_finalist,
    }[finding]()
    return Statement(sentence, tuple(finals.notes()))


class _Finals:
    """The sentences of a verdict; the gains are over the baseline wherever there is one."""

    def __init__(self, summary: Json) -> None:
        self._summary = summary
        self._verdict: Json = summary["verdict"]
        self._objective = summary["study"]["objectives"][0]["name"]
        self._defaults = defaults(summary)
        self._standings = [
            Standing(**{name: each[name] for name in Standing.__dataclass_fields__})
            for each in self._verdict["standings"]
        ]
        self._finalists = [e for e in self._standings if e.candidate != summary["baseline"]]

    def gain(self) -> str:
        winner = self._standing(self._verdict["winner"])
        return (
            f"Trial {winner.candidate} beats {self._defaults}{self._so_far} by "
            f"{percent(winner.gain)[1:]} ({self._confident} {span(winner.low, winner.high)}) "
            f"in {self._of}: {self._launches(winner)}."
        )

    def no_gain(self) -> str:
        best = self._leader()
        if best is None:
            return f"No significant gain over {self._defaults}{self._keep}."
        several = len(self._finalists) > 1
        who = f"the best of {len(self._finalists)} finalists" if several else self._name(best)
        if best.separated:
            return (
                f"No gain: launched again, {who} is behind {self._defaults} "
                f"({self._interval(best)}){self._keep}."
            )
        return (
            f"No significant gain: {who} is within noise of {self._defaults} "
            f"({self._interval(best)}){self._keep}."
        )

    def no_baseline(self) -> str:
        if self._verdict["winner"] is None:
            return f"The finals cannot name a winner{self._so_far}, nor a gain over the defaults."
        winner = self._standing(self._verdict["winner"])
        several = len(self._finalists) > 1
        place = f"is the best of {len(self._finalists)} finalists" if several else "was confirmed"
        return (
            f"Trial {winner.candidate} {place}{self._so_far}: "
            f"{measured(winner.value, self._objective)} {title(self._objective)}, "
            f"{self._launches(winner)}."
        )

    def no_finalist(self) -> str:
        return f"No finalist came through its repeats{self._keep}."

    def undecided(self) -> str:
        best = self._leader()
        rounds = counted(self._verdict["rounds"], "round")
        shown = best is not None and best.gain is not None
        interval = f" ({self._interval(best)})" if best is not None and shown else ""
        who = "a finalist" if best is None or not shown else self._name(best)
        told = f"{who} can be told from {self._defaults}{interval}"
        if self._running:
            return f"The finals are under way, {rounds} so far: not yet clear whether {told}."
        return f"Undecided: the finals ended after {rounds}, before it was clear whether {told}."

    def notes(self) -> Iterator[str]:
        yield from self._tied()
        yield from self._values()
        yield from self._unclear()
        for each in self._standings:
            if each.out:
                yield f"{_capital(self._name(each))} cannot win: {each.out}."
        if self._verdict["finding"] == Finding.NO_BASELINE:
            yield from _caveats(self._summary)
        yield from _penalised(self._summary)
        if not (self._verdict["decided"] or self._running) and self._verdict["tied"]:
            yield f"The finals ended early, after {counted(self._verdict['rounds'], 'round')}."

    def _tied(self) -> Iterator[str]:
        """Why this one of several that cannot be told apart."""
        tied = self._verdict["tied"]
        if len(tied) < 2:
            return
        winner, *others = (self._standing(number) for number in tied)
        alike = [each for each in others if each.overrides == winner.overrides]
        ending = f"overrides {'fewer' if len(others) == 1 else 'the fewest'} defaults"
        if alike:
            ending = "measured best" if alike == others else f"{ending}, and measured better"
        names = listed([str(number) for number in sorted(tied)])
        yield f"Trials {names} cannot be told apart; trial {winner.candidate} {ending}."

    def _values(self) -> Iterator[str]:
        known = [each for each in self._standings if each.value is not None]
        shown = [
            f"{measured(each.value, self._objective)} ({self._name(each)})"
            for each in known
            if each.candidate in (self._verdict["winner"], self._summary["baseline"])
        ]
        noise = self._verdict["noise"]
        if shown:
            ranked = ", penalties included" if self._penalties else ""
            spread = "" if noise is None else f"; one launch varies by {percent(noise)[1:]}"
            yield f"Mean of the repeats{ranked}: {listed(shown[::-1])}{spread}."

    def _unclear(self) -> Iterator[str]:
        """What to do about a gain that is large, and might be chance all the same."""
        best = self._leader()
        asked = self._verdict["finding"] == Finding.NO_GAIN and not self._running
        if asked and best is not None and not best.separated and (best.gain or 0.0) >= LARGE:
            yield (
                f"The gain measured is large ({percent(best.gain)}), but launches differ by too "
                "much to tell it from chance: a machine that does nothing else, or more "
                "verdict.rounds, would show which it is."
            )

    def _leader(self) -> Standing | None:
        able = [each for each in self._finalists if not each.out]
        known = [each for each in able if each.gain is not None]
        return max(known, key=lambda each: each.gain or 0.0, default=next(iter(able), None))

    def _standing(self, number: int) -> Standing:
        return next(each for each in self._standings if each.candidate == number)

    def _name(self, each: Standing) -> str:
        return candidate(self._summary, each.candidate)

    def _launches(self, winner: Standing) -> str:
        counts = {each.repeats for each in self._standings if each.repeats}
        reference = [e.repeats for e in self._standings if e.candidate == self._summary["baseline"]]
        if reference and reference != [winner.repeats]:
            return f"{winner.repeats} and {counted(reference[0], 'launch')}, interleaved"
        each = " each" if len(self._standings) > 1 and (reference or len(counts) == 1) else ""
        interleaved = ", interleaved" if len(self._standings) > 1 else ""
        return f"{counted(winner.repeats, 'launch')}{each}{interleaved}"

    def _interval(self, each: Standing) -> str:
        return f"{percent(each.gain)}, {self._confident} {span(each.low, each.high)}"

    @property
    def _confident(self) -> str:
        return f"{self._verdict['confidence'] * 100:g}\N{NO-BREAK SPACE}% CI"

    @property
    def _of(self) -> str:
        """The objective a gain is in; that of a time is a speed-up."""
        speed = "the speed of " if METRICS[self._objective].unit == "s" else ""
        ranked = ", the penalty of broken SLOs included" if self._penalties else ""
        return speed + title(self._objective) + ranked

    @property
    def _penalties(self) -> bool:
        """Whether values that were compared are not what was measured."""
        return any(
            trial["penalty"] > 1
            for trial in self._summary["trials"]
            if trial["round"] or trial["number"] == self._summary["baseline"]
        )

    @property
    def _keep(self) -> str:
        kept = self._summary["best"] is not None and (
            self._summary["best"] == self._summary["baseline"]
        )
        return "; keep the defaults" if kept else ""

    @property
    def _running(self) -> bool:
        return self._summary["study"]["state"] in ("PENDING", "RUNNING")

    @property
    def _so_far(self) -> str:
        return " so far" if self._running and not self._verdict["decided"] else ""


def _of_search(summary: Json) -> Statement:
    """What one measurement of each trial shows."""
    study = summary["study"]
    best, baseline = trial_in(summary, "best"), trial_in(summary, "baseline")
    objectives = [objective["name"] for objective in study["objectives"]]
    named = defaults(summary)
    so_far = " so far" if study["state"] in ("PENDING", "RUNNING") else ""
    if best is None:
        return _nothing_found(summary["trials"], study["bounds"], so_far)
    values = [f"{measured(best['objectives'][name], name)} {title(name)}" for name in objectives]
    if best is baseline:
        tried = any(t["state"] in ANSWERED for t in summary["trials"] if not t["baseline"])
        sentence = f"Only {named} were measured{so_far}"
        if tried:
            where = f" in {title(objectives[0])}" if len(objectives) > 1 else ""
            sentence = f"Nothing tried{so_far} beats {named}{where}"
        return Statement(f"{sentence}: {', '.join(values)}.", tuple(_penalised(summary)))
    gained = [summary["gain"].get(name) for name in objectives]
    for place, name in enumerate(objectives):
        if (change := gained[place]) is not None and baseline is not None:
            over = f"over {named} " if place == 0 else ""
            speed = " in speed" if METRICS[name].unit == "s" else ""
            reference = measured(baseline["objectives"][name], name)
            values[place] += f", {percent(change)}{speed} {over}({reference})"
    return Statement(
        f"Trial {best['number']} reaches{so_far} {'; '.join(values)}.",
        (
            *_caveats(summary),
            *_penalised(summary),
            *([_ONE_RUN] if gained[0] is not None else []),
        ),
    )


def _nothing_found(trials: Sequence[Json], bounds: Mapping[str, float], so_far: str) -> Statement:
    complete = [trial for trial in trials if trial["state"] == "COMPLETE"]
    unjudged = Counter(t["reason"] for t in trials if t["load_points"] and t["reason"])
    missed = [trial for trial in complete if broken(trial, bounds)]
    missed = missed or [t for t in trials if t["failure"] == "SLO" and broken(t, bounds)]
    if missed:
        close = min(missed, key=lambda trial: max(trial["violations"].values()))
        note = f"Closest is trial {close['number']}: {', '.join(broken(close, bounds))}."
        return Statement(f"No trial met every constraint{so_far}.", (note,))
    if complete:
        return Statement(f"No trial has a value for every objective{so_far}.", ())
    if unjudged:
        reason, count = unjudged.most_common(1)[0]
        told = counted(count, "trial")
        return Statement(f"No trial can be ranked{so_far}.", (f"Of {told}: {reason}.",))
    return Statement(f"No trial was {'measured' if trials else 'started'}{so_far}.", ())


def _caveats(summary: Json) -> list[str]:
    """Why the baseline is no reference, or not a fair one."""
    baseline, named = trial_in(summary, "baseline"), defaults(summary)
    if baseline is None:
        return [f"{named} were not tried: the gain is unknown."]
    if baseline["state"] in UNENDED:
        return [f"{named} have not been measured yet: the gain is unknown."]
    failed = broken(baseline, summary["study"]["bounds"])
    if failed:
        return [f"{named} break a constraint: {', '.join(failed)}."]
    if baseline["state"] != "COMPLETE":
        why = [text for text in (baseline["failure"], baseline["reason"]) if text]
        told = ": ".join(why) or baseline["state"]
        return [f"{named} gave no measurement, so the gain is unknown ({told})."]
    return []


def _penalised(summary: Json) -> Iterator[str]:
    """The best, and what it is compared with, may break service levels where a study only makes
    them pay for it."""
    best, baseline = trial_in(summary, "best"), trial_in(summary, "baseline")
    name = summary["study"]["objectives"][0]["name"]
    for each in [best] if best is baseline else [best, baseline]:
        if each is not None and each["penalty"] > 1 and each["scores"].get(name) is not None:
            who = _capital(candidate(summary, each["number"]))
            failed = ", ".join(broken(each, summary["study"]["bounds"]))
            are = ("breaks its", "it is") if who.startswith("Trial") else ("break the", "they are")
            score = measured(each["scores"][name], name)
            yield f"{who} {are[0]} SLO: {failed}; {are[1]} ranked as {score}, the penalty included."


def _several(summary: Json) -> Iterator[str]:
    """Of several objectives: by which the best is best, and what else is on the front."""
    objectives = summary["study"]["objectives"]
    others = [str(number) for number in summary["front"] if number != summary["best"]]
    if len(objectives) < 2 or not others:
        return
    named = ", ".join(others)
    if summary["verdict"] is not None:
        yield (
            f"The verdict is on the first objective, {title(objectives[0]['name'])}; "
            f"also on the Pareto front: {named}."
        )
    else:
        yield f"“Best” goes by the first objective; also on the Pareto front: {named}."


def _capital(text: str) -> str:
    """The text as a sentence begins; an engine keeps its own spelling."""
    return "T" + text[1:] if text.startswith("trial ") else text
