"""Groups: five letters are sent in one call; one of them cannot be, and one only at the second attempt."""

from __future__ import annotations

from pydantic import BaseModel

from consumers import BatchContext, Registry, Retry
from examples.shop import Shop, attempts, show

jobs = Registry()


class Letter(BaseModel):
    """One member."""

    to: str


@jobs.handler("example.letters", retry=Retry(max_attempts=3, base=0.25, never=(ValueError,)))
async def send(letters: list[Letter], ctx: BatchContext) -> list[str | Exception]:
    """Send all of them together; what fails fails alone."""
    ended: list[str | Exception] = []
    for letter, member in zip(letters, ctx.members, strict=True):
        if "@" not in letter.to:
            ended.append(ValueError("no address"))
        elif letter.to.startswith("busy") and member.attempt == 1:
            ended.append(ConnectionError("try again"))
        else:
            ended.append(f"one of {len(letters)}")
    return ended


def main() -> None:
    """The group is complete with its fifth member; without that it would go after ten seconds."""
    with Shop() as shop:
        group = {"key": shop.run, "max_size": 5, "max_wait": 10.0}
        for to in ("ann@example.org", "bob@example.org", "nobody", "busy@example.org", "cid@example.org"):
            shop.publish("example.letters", {"to": to}, group=group)
        found = shop.jobs(5)
    show(
        found,
        to=lambda job: job["payload"]["to"],
        state=lambda job: job["state"],
        attempts=attempts,
        result=lambda job: job.get("result") or job["error"]["message"],
    )
    print(f"batches: {len({job['batch'] for job in found})}")


if __name__ == "__main__":
    main()
