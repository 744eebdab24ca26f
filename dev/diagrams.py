"""The drawings in docs/images: `python -m dev.diagrams` draws them anew. A test holds files and program together."""

from pathlib import Path

from dev.drawing import Drawing

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "images"


def way() -> Drawing:
    """The way of a job."""
    made = Drawing(1000, 500, "The way of a job: published, taken in, run by a worker, recorded.")
    made.box(20, 40, 130, 60, "app", "application", "any language")
    made.box(200, 50, 110, 40, "exchange", "jobs")
    made.box(360, 40, 130, 60, "queue", "intake.v1")
    made.box(545, 30, 150, 80, "service", "intake", "key, rights, body,", "id, delay, group")
    made.box(770, 40, 210, 60, "queue", "rejected", "refused, and why")
    made.way((150, 70), (198, 70))
    made.way((310, 70), (358, 70))
    made.way((490, 70), (543, 70))
    made.way((695, 70), (768, 70), seldom=True)

    made.box(490, 170, 260, 60, "queue", "work.v1.<lane>.<priority>", "one queue each")
    made.box(770, 170, 210, 60, "queue", "scheduled.v1", "due in over a minute")
    made.way((620, 110), (620, 168))
    made.way((670, 110), (670, 140), (875, 140), (875, 168), seldom=True)

    made.box(530, 290, 180, 70, "service", "worker", "your handler,", "with a timeout")
    made.box(770, 290, 210, 70, "service", "scheduler", "keeps it in MongoDB,", "hands it to the ladder")
    made.way((620, 230), (620, 288))
    made.way((875, 230), (875, 288), seldom=True)
    made.way((770, 325), (745, 325), (745, 255), (400, 255), (400, 232), seldom=True)

    made.box(250, 170, 190, 60, "queue", "delay.v1.00 to .19", "the delay ladder")
    made.way((530, 310), (345, 310), (345, 232), seldom=True)
    made.note(352, 300, "failed: again later")
    made.way((440, 200), (488, 200), seldom=True)
    made.way((570, 110), (570, 140), (345, 140), (345, 168), seldom=True)
    made.note(352, 134, "delay of up to a minute")
    made.box(250, 400, 190, 60, "queue", "parked.v1.<lane>", "gave up; replay it")
    made.way((530, 340), (345, 340), (345, 398), seldom=True)
    made.note(352, 360, "failed for good")

    made.box(530, 400, 180, 60, "queue", "history.v1", "events")
    made.way((620, 360), (620, 398))
    made.box(770, 400, 90, 60, "service", "recorder")
    made.box(890, 395, 90, 70, "store", "MongoDB", "history")
    made.way((710, 430), (768, 430))
    made.way((860, 430), (888, 430))
    made.note(20, 410, "pill: exchange", "barred box: queue", "dashed: not every job", "events come from intake too")
    return made


def lanes() -> Drawing:
    """Lanes and priorities."""
    made = Drawing(1000, 400, "Two lanes of five queues each, and the workers that serve them.")
    names = ("critical", "high", "normal", "low", "background")
    for lane, top in (("default", 20), ("slow", 210)):
        made.frame(200, top, 330, 170, f"lane {lane}")
        for number, name in enumerate(names):
            made.box(330, top + 10 + number * 31, 190, 26, "queue", name)
            made.way((520, top + 23 + number * 31), (590, top + 85 + (number - 2) * 14))
    made.box(20, 165, 110, 70, "service", "intake", "lane from type", "or message")
    made.way((130, 190), (165, 190), (165, 105), (198, 105))
    made.way((130, 210), (165, 210), (165, 295), (198, 295))
    made.box(592, 65, 180, 80, "service", "workers of default", "highest first, but", "1 start in 10: oldest")
    made.box(592, 255, 180, 80, "service", "workers of slow", "long jobs harm", "nobody else")
    made.way((772, 105), (826, 105))
    made.way((772, 295), (826, 295))
    made.box(828, 75, 150, 60, "app", "places", "concurrency: 100")
    made.box(828, 265, 150, 60, "app", "places", "concurrency: 4")
    return made


def ladder() -> Drawing:
    """The delay ladder."""
    made = Drawing(1000, 360, "A delay of 5 seconds is 4 and 1: the job waits in two queues of the ladder.")
    made.note(20, 30, "A delay is a sum of levels. 5 s = 4 s + 1 s: two queues. 8 s: one queue.", strong=True)
    made.box(20, 70, 130, 60, "service", "worker", "retry in 5 s")
    levels = ((230, "level 06", "8 s"), (420, "level 05", "4 s"), (610, "level 04", "2 s"), (800, "level 03", "1 s"))
    for x, name, length in levels:
        made.box(x, 170, 150, 60, "queue", name, length)
    made.note(230, 255, "and so on, from 1/8 s (level 00) to 65,536 s (level 19)")
    made.way((150, 100), (495, 100), (495, 168))
    made.note(250, 92, "delay.v1, key default.normal.05.03")
    made.way((520, 170), (520, 130), (875, 130), (875, 168))
    made.note(620, 122, "4 s later")
    made.way((875, 230), (875, 290), (762, 290))
    made.note(885, 275, "1 s later")
    made.box(650, 270, 110, 40, "exchange", "due.v1")
    made.box(370, 260 + 5, 220, 50, "queue", "work.v1.default.normal")
    made.way((650, 290), (592, 290))
    made.box(130, 265, 150, 50, "service", "worker", "attempt n + 1")
    made.way((370, 290), (282, 290))
    made.note(20, 345, "Each queue has one lifetime for all of its messages, so none waits behind a longer one.")
    return made


def retries() -> Drawing:
    """Attempts along a line of time."""
    made = Drawing(1000, 210, "Five attempts with pauses of 1, 2, 4 and 8 seconds; the fifth failure parks the job.")
    made.note(20, 30, "retry: max_attempts 5, base 1, factor 2", strong=True)
    spots = ((20, "1"), (140, "2"), (290, "3"), (480, "4"), (720, "5"))
    for x, name in spots:
        made.box(x, 70, 66, 46, "bad", name, "failed")
    for (left, _), (right, _), pause in zip(spots, spots[1:], ("1 s", "2 s", "4 s", "8 s"), strict=False):
        made.way((left + 66, 93), (right - 2, 93), seldom=True)
        made.note((left + 66 + right) / 2, 84, pause, anchor="middle")
    made.way((786, 93), (838, 93))
    made.box(840, 63, 140, 60, "queue", "parked", "at most 30 days")
    made.way((910, 123), (910, 165), (53, 165), (53, 118), seldom=True)
    made.note(500, 185, "dead replay: another run, attempts from 1 again", anchor="middle")
    return made


def groups() -> Drawing:
    """Groups."""
    made = Drawing(1000, 330, "Members of a group wait in one queue and go to their handler together.")
    for x, y, item in ((20, 30, "a"), (20, 90, "b"), (20, 150, "c")):
        made.box(x, y, 150, 46, "app", f"member {item}", "newsletter-7")
        made.way((170, y + 23), (208, 113 + (y - 90) / 3))
    made.box(210, 80, 110, 66, "service", "intake", "any of them")
    made.way((320, 113), (358, 113))
    made.box(360, 80, 160, 66, "queue", "group.v1.<n>", "n from its group")
    made.way((520, 113), (558, 113))
    made.box(560, 70, 170, 86, "service", "the one intake", "that gathers it:", "size, time or bytes")
    made.way((730, 113), (768, 113))
    made.box(770, 80, 210, 66, "queue", "work queue", "one batch: [a, b, c]")
    made.way((875, 146), (875, 208))
    made.box(790, 210, 170, 66, "service", "worker", "one call for all")
    made.way((790, 243), (692, 243))
    made.box(510, 223, 180, 40, "good", "a, c: succeeded")
    made.way((790, 262), (740, 262), (740, 300), (692, 300), seldom=True)
    made.box(510, 280, 180, 40, "bad", "b: retried alone")
    made.note(20, 300, "Until the batch is published, the members stay in group.v1.<n>.")
    return made


def ids() -> Drawing:
    """Ids and claims."""
    made = Drawing(1000, 320, "A message that is sent twice with one id is one job.")
    made.box(20, 60, 160, 60, "app", "application", "id: order-1234")
    made.note(20, 40, "sent, no answer, sent again", strong=True)
    made.box(20, 190, 160, 60, "app", "application", "id: order-1234")
    made.box(290, 60, 140, 60, "service", "intake 1")
    made.box(290, 190, 140, 60, "service", "intake 2")
    made.way((180, 90), (288, 90))
    made.note(234, 80, "first", anchor="middle")
    made.way((180, 220), (288, 220))
    made.note(234, 210, "again", anchor="middle")
    made.box(540, 115, 180, 80, "store", "claims", "shop:order-1234", "taken by the first")
    made.way((430, 90), (480, 90), (480, 140), (538, 140))
    made.note(490, 84, "1. claim: mine")
    made.way((430, 220), (480, 220), (480, 170), (538, 170))
    made.note(490, 234, "2. claim: known already")
    made.way((360, 60), (360, 20), (868, 20), (868, 58))
    made.note(600, 40, "publish, confirm, mark as done", anchor="middle")
    made.box(770, 60, 210, 60, "queue", "work queue", "one job")
    made.way((360, 250), (360, 280), (100, 280), (100, 252))
    made.note(375, 284, "accepted, duplicate: true; the job counts it as resent")
    return made


def states() -> Drawing:
    """The states of a job."""
    made = Drawing(1000, 400, "The states of a job, from acceptance to its final state.")
    made.box(20, 30, 150, 50, "app", "scheduled", "waits for its time")
    made.box(20, 120, 150, 50, "app", "buffered", "in a group")
    made.box(270, 75, 150, 50, "queue", "queued", "work queue")
    made.box(520, 75, 150, 50, "service", "running", "a worker has it")
    made.box(520, 195, 150, 50, "queue", "retrying", "delay ladder")
    made.way((170, 55), (220, 55), (220, 92), (268, 92))
    made.way((170, 145), (220, 145), (220, 110), (268, 110))
    made.way((420, 100), (518, 100))
    made.way((580, 125), (580, 193))
    made.note(572, 165, "failed", anchor="end")
    made.way((620, 195), (620, 127))
    made.note(630, 165, "its pause is over")
    made.way((595, 75), (595, 20), (345, 20), (345, 40), (172, 40), seldom=True)
    made.note(470, 36, "Snooze", anchor="middle")
    finals = (
        ("good", "succeeded", "returned"),
        ("bad", "failed", "gave up; parked"),
        ("bad", "timed_out", "last attempt; parked"),
    )
    for number, (kind, name, why) in enumerate(finals):
        made.box(790, 20 + number * 70, 190, 54, kind, name, why)
        made.way((670, 100), (750, 100), (750, 47 + number * 70), (788, 47 + number * 70))
    made.frame(20, 270, 960, 110, "final too")
    for x, name, why in (
        (40, "cancelled", "Cancel, or an operator"),
        (275, "expired", "not started in time"),
        (510, "rejected", "refused at intake"),
        (745, "duplicate", "unique key taken"),
    ):
        made.box(x, 305, 215, 54, "plain", name, why)
    return made


def twice() -> Drawing:
    """At least once."""
    made = Drawing(
        1000, 330, "A worker dies between the work and its acknowledgement; another one runs the step again."
    )
    made.note(20, 60, "worker A", strong=True)
    made.note(20, 190, "worker B", strong=True)
    made.box(120, 35, 130, 46, "queue", "delivered", "attempt 1")
    made.way((250, 58), (288, 58))
    made.box(290, 35, 150, 46, "service", "handler runs", "card charged")
    made.way((440, 58), (478, 58))
    made.box(480, 35, 130, 46, "bad", "kill -9", "nothing acked")
    made.way((545, 81), (545, 110), (185, 110), (185, 163))
    made.note(365, 102, "the broker delivers it again", anchor="middle")
    made.box(120, 165, 130, 46, "queue", "delivered", "attempt 1")
    made.way((250, 188), (288, 188))
    made.box(290, 165, 150, 46, "service", "asks first", "peers and history")
    made.way((440, 188), (478, 188))
    made.box(480, 165, 170, 46, "service", "handler runs", "same id: no charge")
    made.way((650, 188), (698, 188))
    made.box(700, 165, 150, 46, "queue", "event", "confirmed")
    made.way((850, 188), (888, 188))
    made.box(890, 165, 90, 46, "good", "ack")
    made.note(20, 255, "History shows both executions of attempt 1: one without an end, one that succeeded.")
    made.note(20, 280, 'The handler must bear that: it hands f"{ctx.app}:{ctx.id}" on as idempotency key,')
    made.note(20, 296, "which is the same for every execution of the job.")
    return made


DRAWINGS = {
    "way-of-a-job": way,
    "lanes": lanes,
    "ladder": ladder,
    "retries": retries,
    "groups": groups,
    "ids": ids,
    "states": states,
    "twice": twice,
}


def main() -> None:
    """Write each drawing."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, draw in DRAWINGS.items():
        (FOLDER / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")
        print(f"docs/images/{name}.svg")


if __name__ == "__main__":
    main()
