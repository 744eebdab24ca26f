"""Commands on a real terminal: bars, questions, colours, widths, hostile text, and how one leaves."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from dispatcher.edges.mongo.jobs import to_bson
from schemas import ErrorInfo
from tests.processes import invoke
from tests.support import Installation
from tests.terminal import CTRL_C, CTRL_D, Terminal
from tests.unit.samples import make_work
from tests.unit.test_explaining import make_doc
from tests.unit.test_output import HOSTILE, drives

pytestmark = pytest.mark.integration

JOBS = 40
#: Each letter takes two places.
WIDE = "漢字仮名" * 12


@pytest.fixture
def dead(installed: Installation) -> Installation:
    """Some dead jobs, in history and parked, and nothing else."""
    with installed.channel() as channel:
        for queue in (installed.names.parked("default"), installed.names.work_queue("default", "normal")):
            channel.queue_purge(queue)
    installed.db.jobs.delete_many({})
    ids = [f"t-{number:03}" for number in range(JOBS)]
    error = {"type": "ConnectionError", "message": "no answer", "traceback": ""}
    docs = [make_doc("failed", id=each, error=error, payload={}) | {"_id": f"shop:{each}"} for each in ids]
    installed.db.jobs.insert_many([to_bson(doc) for doc in docs])
    works = [make_work(id=each, error=ErrorInfo(type="ConnectionError", message="no answer")) for each in ids]
    queue = installed.names.parked("default")
    installed.publish_many([(queue, work.encode()) for work in works], exchange="")
    return installed


def started(installation: Installation) -> int:
    """How many jobs wait in the queue."""
    return installation.depth(installation.names.work_queue("default", "normal"))


REPLAY = ("dead", "replay", "--all")
RETRY = ("jobs", "retry", "--all")
ERASE = ("jobs", "erase", "--app", "shop")


@pytest.mark.parametrize(
    ("arguments", "question"),
    [(REPLAY, f"replay {JOBS} jobs?"), (RETRY, f"retry {JOBS} jobs?"), (ERASE, f"erase {JOBS} jobs in history")],
    ids=["replay", "retry", "erase"],
)
def test_yes_does_it_with_a_bar(dead: Installation, arguments: tuple[str, ...], question: str) -> None:
    """The question says how many; the bar how far it is, and it goes to its end."""
    with Terminal(dead, *arguments) as terminal:
        terminal.until(question)
        terminal.until("[y/N]:")
        terminal.type(b"y\n")
        assert terminal.ends() == 0, terminal.text
        assert f"{JOBS}/{JOBS}" in terminal.text
        assert "━" in terminal.text
        assert terminal.restored
        assert terminal.widest <= 80
    assert started(dead) == (0 if arguments is ERASE else JOBS)
    assert (dead.db.jobs.count_documents({}) == 0) == (arguments is ERASE)


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [(REPLAY, b"n\n"), (REPLAY, b"\n"), (REPLAY, CTRL_C), (REPLAY, CTRL_D), (RETRY, b"n\n"), (ERASE, b"n\n")],
    ids=["replay-no", "replay-enter", "replay-ctrl-c", "replay-end", "retry-no", "erase-no"],
)
def test_no_does_nothing(dead: Installation, arguments: tuple[str, ...], answer: bytes) -> None:
    """Exit code 1, every job is where it was, and the terminal as it was."""
    with Terminal(dead, *arguments) as terminal:
        terminal.until("[y/N]:")
        assert terminal.ends(answer) == 1
        assert "Aborted!" in terminal.text
        assert "Traceback" not in terminal.text
        assert terminal.restored
    assert started(dead) == 0
    assert dead.depth(dead.names.parked("default")) == JOBS
    assert dead.db.jobs.count_documents({}) == JOBS


@pytest.mark.parametrize(
    ("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)], ids=str
)
def test_colours_are_for_terminals_that_want_them(dead: Installation, env: dict[str, str], coloured: bool) -> None:
    """A failed job is red, but for NO_COLOR and a terminal that has no colours."""
    with Terminal(dead, "jobs", "list", "--limit", "3", columns=200, env=env) as terminal:
        assert terminal.ends() == 0
        assert "failed" in terminal.text
        assert terminal.coloured == coloured


@pytest.fixture(scope="module")
def hostile(installed: Installation) -> Installation:
    """A job and a refused message whose every text tries to drive the terminal, and is wide."""
    installed.db.jobs.delete_many({})
    text = f"{HOSTILE} {WIDE}"
    error = {"type": f"E{HOSTILE}", "message": text, "traceback": text}
    attempt: dict[str, Any] = {"run": 1, "n": 1, "execution": "e", "started_at": 0, "finished_at": 1}
    attempt |= {"outcome": "failed", "worker": HOSTILE, "error": error}
    doc = make_doc("failed", id="h", type=f"t{HOSTILE}", error=error, tags=[text], attempts=[attempt])
    doc |= {"_id": "shop:h", "payload": {text: text}, "result": text}
    installed.db.jobs.insert_one(to_bson(doc))
    headers = dict.fromkeys(("x-rejected-reason", "x-app", "x-type", "x-error"), text)
    for queue in (installed.names.rejected, installed.names.unrecorded):
        installed.publish(queue, text.encode(), exchange="", headers=headers)
    return installed


TABLES = ("jobs list", "jobs show h", "dead list", "rejected list", "unrecorded list")


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("arguments", TABLES)
def test_a_table_of_hostile_text_fits(hostile: Installation, arguments: str, columns: int) -> None:
    """What comes from outside drives nothing, and no line is too wide, with letters of two places too."""
    with Terminal(hostile, *arguments.split(), columns=columns) as terminal:
        assert terminal.ends() == 0, terminal.text
        assert "│" in terminal.text
        assert drives(terminal.text) == set()
        assert "\x1b[2J" not in terminal.raw
        assert terminal.widest <= columns


@pytest.mark.parametrize("arguments", ["keys list", "audit list"])
def test_the_id_of_a_key_is_in_one_piece(installed: Installation, arguments: str) -> None:
    """It is what one copies; where there is little room, other columns go."""
    made = invoke(installed, "keys", "create", "--app", "shop", "--types", "a.*", "--json").json
    with Terminal(installed, *arguments.split(), columns=80) as terminal:
        assert terminal.ends() == 0, terminal.text
        assert made["id"] in terminal.text
        assert "no room for: " in terminal.text
        assert terminal.widest <= 80


@pytest.mark.parametrize(("arguments", "code"), [("jobs explain h", 0), ("watch h", 1), ("jobs show h --json", 0)])
def test_lines_of_hostile_text_are_lines(hostile: Installation, arguments: str, code: int) -> None:
    """The same for what is no table."""
    with Terminal(hostile, *arguments.split()) as terminal:
        assert terminal.ends() == code, terminal.text
        assert "gnirts" in terminal.text
        assert drives(terminal.text) == set()
        assert "\x1b[2J" not in terminal.raw


@pytest.mark.parametrize("how", ["q", "ctrl-c", "sigterm"])
def test_top_leaves_the_terminal_as_it_was(installed: Installation, how: str) -> None:
    """It shows itself again and again, without echo and cursor; both are back whichever way one leaves."""
    with Terminal(installed, "top", "--interval", "0.2", "--all") as terminal:
        terminal.until("unrecorded")
        assert not terminal.restored
        if how == "sigterm":
            terminal.signal(signal.SIGTERM)
        assert terminal.ends({"q": b"q", "ctrl-c": CTRL_C}.get(how, b""), timeout=20) == 0
        assert terminal.restored
        assert "Traceback" not in terminal.text
        assert "idle: default 0 of 0" in terminal.text
        assert terminal.widest <= 80


def test_watch_is_left_with_ctrl_c(installed: Installation) -> None:
    """The job is not touched, the terminal is as it was."""
    installed.db.jobs.delete_many({})
    doc = make_doc("queued", id="w") | {"_id": "shop:w"}
    installed.db.jobs.insert_one(to_bson(doc))
    with Terminal(installed, "watch", "w", "--interval", "0.1") as terminal:
        terminal.until("state queued")
        assert terminal.ends(CTRL_C, timeout=20) == 1
        assert "Traceback" not in terminal.text
        assert terminal.restored
