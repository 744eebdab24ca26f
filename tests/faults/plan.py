"""Which jobs a run publishes, chosen by its seed, and what must become of each."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from schemas import PRIORITIES

#: Length of a job in milliseconds, and how often it occurs: mostly short, so that a worker's 100 places suffice.
LENGTHS = {1: 400, 5: 250, 20: 200, 100: 120, 1_000: 25, 10_000: 4, 60_000: 1}
#: Longest job of a kind that is executed several times, in milliseconds: a run must end some time.
LONGEST_REPEATED = 1_000
#: The same without the longest, for runs that must end soon.
SHORT_LENGTHS = {1: 400, 5: 250, 20: 200, 100: 120, 1_000: 10}
#: Parts of each kind. Poison jobs are asked for.
WEIGHTS = {"plain": 76, "flaky": 10, "delayed": 3, "hopeless": 3, "slow": 2, "snooze": 6, "poison": 0}
#: Parts of the jobs that are sent again, seconds after which they are, and parts of the plain ones with a unique key.
SENT_AGAIN, AGAIN, WITH_KEY = 0.1, (0.0, 0.05, 0.5, 3.0, 10.0), 0.1


class Step(NamedTuple):
    """One execution that a job is to have: its attempt, the snoozes before it, and how it ends in history.

    ``after`` is how many seconds it comes after the end of the one before it, at least.
    """

    n: int
    k: int
    outcome: str
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Job:
    """A job to publish, the steps that it takes, and the state in which it ends."""

    id: str
    type: str
    payload: Mapping[str, Any]
    priority: str
    state: str
    steps: tuple[Step, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)
    #: Published without its id, which MongoDB would have to know; its payload names it.
    anonymous: bool = False
    #: Seconds after its publish at which it is sent again with the same id.
    again: float | None = None

    @property
    def key(self) -> str | None:
        """Its unique key; of the jobs with one key not all need run."""
        return self.fields["unique"]["key"] if "unique" in self.fields else None

    @property
    def exclusive(self) -> bool:
        """Whether another job with its key may run once it has ended."""
        return "unique" in self.fields and self.fields["unique"]["until"] == "final"

    @property
    def last(self) -> Step:
        """The step that ends it."""
        return self.steps[-1]

    def step(self, n: int, k: int) -> Step | None:
        """The step of this attempt after so many snoozes."""
        return next((step for step in self.steps if (step.n, step.k) == (n, k)), None)


def make_plan(
    count: int,
    seed: int,
    *,
    lengths: Mapping[int, int] = LENGTHS,
    weights: Mapping[str, int] = WEIGHTS,
    poison: int = 0,
) -> list[Job]:
    """So many jobs of all kinds and priorities, of which so many are poison besides what the weights say."""
    rng = random.Random(seed)
    kinds, parts = list(weights), list(weights.values())
    plan = [_job(f"job-{index:06d}", rng.choices(kinds, parts)[0], rng, lengths) for index in range(count)]
    for index in rng.sample(range(count), poison):
        plan[index] = _job(plan[index].id, "poison", rng, lengths)
    return _with_keys(_sent_again(plan, seed), seed)


def _sent_again(plan: Sequence[Job], seed: int) -> list[Job]:
    """The same jobs, of which some are sent again: together with the first message, soon after it, or much later."""
    rng = random.Random(f"again {seed}")
    return [replace(job, again=rng.choice(AGAIN)) if rng.random() < SENT_AGAIN else job for job in plan]


def _with_keys(plan: Sequence[Job], seed: int) -> list[Job]:
    """The same jobs, of which some plain ones have a unique key; those with one key are a few places apart."""
    rng, keyed, name, left = random.Random(f"keys {seed}"), list(plan), "", 0
    for index, job in enumerate(plan):
        if job.type != "chaos.plain" or rng.random() >= WITH_KEY:
            continue
        if not left:
            name, left, until = f"key-{index}", rng.randint(2, 4), rng.choice(("window", "final"))
        keyed[index] = replace(job, fields={**job.fields, "unique": {"key": name, "for": 86_400, "until": until}})
        left -= 1
    return keyed


def plain_job(job_id: str, priority: str = "normal", *, ms: int = 1, **fields: Any) -> Job:
    """A job of so many milliseconds."""
    return Job(job_id, "chaos.plain", {"ms": ms}, priority, "succeeded", (Step(1, 0, "succeeded"),), fields)


def anonymous_job(job_id: str) -> Job:
    """A job of a millisecond, published without its id."""
    return replace(plain_job(job_id), payload={"ms": 1, "name": job_id}, anonymous=True)


def own_name(document: Mapping[str, Any]) -> str:
    """What the plan calls a document's job."""
    name: str = document.get("payload", {}).get("name", document["id"])
    return name


def make_delays(count: int, seed: int, longest: float) -> list[Job]:
    """Jobs that are put off one to three times, by retries and snoozes, at first for up to so many seconds."""
    rng = random.Random(f"delays {seed}")
    return [_hops(f"job-{index:06d}", rng, longest) for index in range(count)]


def _hops(job_id: str, rng: random.Random, longest: float) -> Job:
    delays = [rng.randint(1, max(int(longest * 8) >> 2 * hop, 1)) / 8 for hop in range(rng.randint(1, 3))]
    failing = rng.choice([*range(len(delays)), None])  # one retry at most, since its policy has but one delay
    steps, n, k = [], 1, 0
    for hop, after in enumerate([0.0, *delays[:-1]]):
        steps.append(Step(n, k, "failed" if hop == failing else "snoozed", after))
        n, k = (n + 1, k) if hop == failing else (n, k + 1)
    steps.append(Step(n, k, "succeeded", delays[-1]))
    payload = {"ms": 1, "hops": [None if hop == failing else delay for hop, delay in enumerate(delays)]}
    fields = {} if failing is None else {"retry": {"base": delays[failing], "factor": 1.0}}
    return Job(job_id, "chaos.hops", payload, rng.choice(PRIORITIES), "succeeded", tuple(steps), fields)


def delayed_job(job_id: str, seconds: float) -> Job:
    """A job that fails once and is tried again after so many seconds."""
    return Job(job_id, "chaos.delayed", {"ms": 1, "failures": 1}, "normal", *_fails(1, seconds))


def _job(job_id: str, kind: str, rng: random.Random, lengths: Mapping[int, int]) -> Job:
    (ms,) = rng.choices(list(lengths), list(lengths.values()))
    payload, state, steps, fields = _KINDS[kind](rng)
    if len(steps) > 1:
        ms = min(ms, LONGEST_REPEATED)
    return Job(job_id, f"chaos.{kind}", {"ms": ms} | payload, rng.choice(PRIORITIES), state, steps, fields)


Made = tuple[dict[str, Any], str, tuple[Step, ...], dict[str, Any]]


def _plain(rng: random.Random) -> Made:
    return {}, "succeeded", (Step(1, 0, "succeeded"),), {}


def _fails(failures: int, base: float) -> tuple[str, tuple[Step, ...], dict[str, Any]]:
    failed = (Step(n, 0, "failed", base if n > 1 else 0.0) for n in range(1, failures + 1))
    steps = (*failed, Step(failures + 1, 0, "succeeded", base))
    return "succeeded", steps, {"retry": {"base": base, "factor": 1.0}}


def _flaky(rng: random.Random) -> Made:
    failures = rng.randint(1, 3)
    return ({"failures": failures}, *_fails(failures, rng.choice([0.25, 0.5, 1.0])))


def _delayed(rng: random.Random) -> Made:
    return ({"failures": 1}, *_fails(1, rng.choice([2.0, 3.0, 5.0])))


def _hopeless(rng: random.Random) -> Made:
    return {}, "failed", (Step(1, 0, "failed"), Step(2, 0, "failed", 0.25)), {}


def _slow(rng: random.Random) -> Made:
    attempts = rng.randint(1, 2)
    steps = tuple(Step(n, 0, "timed_out", 0.25 if n > 1 else 0.0) for n in range(1, attempts + 1))
    return {}, "timed_out", steps, {"retry": {"max_attempts": attempts, "base": 0.25}}


def _snooze(rng: random.Random) -> Made:
    snoozes, seconds = rng.randint(1, 3), rng.choice([0.125, 0.5, 1.0])
    snoozed = (Step(1, k, "snoozed", seconds if k else 0.0) for k in range(snoozes))
    steps = (*snoozed, Step(1, snoozes, "succeeded", seconds))
    return {"snoozes": snoozes, "seconds": seconds}, "succeeded", steps, {}


def _poison(rng: random.Random) -> Made:
    attempts = rng.randint(1, 2)
    steps = tuple(Step(n, 0, "crashed") for n in range(1, attempts + 1))
    return {}, "failed", steps, {"retry": {"max_attempts": attempts, "base": 0.25}}


_KINDS: dict[str, Callable[[random.Random], Made]] = {
    "plain": _plain,
    "flaky": _flaky,
    "delayed": _delayed,
    "hopeless": _hopeless,
    "slow": _slow,
    "snooze": _snooze,
    "poison": _poison,
}
