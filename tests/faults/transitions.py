"""Whether a job ever had two final states in one run, read from MongoDB's own log of writes.

A document shows its last state alone, and handlers do not know states. The change stream of `jobs` is the replica
set's oplog: every write that the majority has, once and in the one order in which all readers see them. So a run
whose state was final and then became another shows there, however short it was; and if the state that the stream
leaves each document in is the one that is found in it at the end, no write was missed.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pymongo
from pymongo.errors import PyMongoError

from dispatcher.core.lifecycle import FINAL

#: A collection that is written once, at the end: what comes before it in the stream is all there is.
MARKER = "chaos_marker"
_PIPELINE: list[dict[str, Any]] = [
    {"$match": {"ns.coll": {"$in": ["jobs", MARKER]}}},
    {
        "$project": {
            "operationType": 1,
            "ns.coll": 1,
            "documentKey": 1,
            "fullDocument.state": 1,
            "fullDocument.run": 1,
            "updateDescription.updatedFields.state": 1,
            "updateDescription.updatedFields.run": 1,
        }
    },
]


@dataclass
class Transitions:
    """The states as the log of writes has them: (run, state) of each document now, and what must not happen."""

    now: dict[str, tuple[int, str]] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    #: Why the log could not be read to its end; "" when it was.
    problem: str = ""

    def take(self, change: Mapping[str, Any]) -> None:
        """One write to a document of `jobs`."""
        job = change["documentKey"]["_id"]
        if change["operationType"] == "delete":
            self.violations.append(f"{job} was deleted")
            return
        fields = change.get("fullDocument") or change.get("updateDescription", {}).get("updatedFields", {})
        run, state = self.now.get(job, (0, ""))
        new = (fields.get("run", run), fields.get("state", state))
        if new[0] < run:
            self.violations.append(f"{job} went back from run {run} to {new[0]}")
        elif new[0] == run and state in FINAL and new[1] != state:
            self.violations.append(f"{job} run {run} was {state} and became {new[1]}")
        self.now[job] = new


class Watching:
    """Reads the change stream in a thread, from `start` to `stop`; it comes back by itself where MongoDB does."""

    def __init__(self, url: str, database: str) -> None:
        self._client: Any = pymongo.MongoClient(url)
        self._db = self._client[database]
        self.found = Transitions()
        self._stream = self._db.watch(_PIPELINE, max_await_time_ms=500)
        self._thread = threading.Thread(target=self._run, name="transitions", daemon=True)

    def start(self) -> None:
        """Begin to read; everything from the creation of this object on is read."""
        self._thread.start()

    def stop(self, timeout: float = 60.0) -> Transitions:
        """Read to the end of what is written now."""
        self._db[MARKER].insert_one({})
        self._thread.join(timeout)
        if self._thread.is_alive():
            self.found.problem = f"its end was not reached within {timeout:g} s"
        self._client.close()
        return self.found

    def _run(self) -> None:
        while True:
            try:
                if self._read():
                    return
            except PyMongoError as error:  # the driver resumes once by itself; a server that is away takes longer
                token = self._stream.resume_token
                if not self._again(token):
                    self.found.problem = f"{type(error).__name__}: {error}"
                    return

    def _read(self) -> bool:
        for change in self._stream:
            if change["ns"]["coll"] == MARKER:
                return True
            self.found.take(change)
        return False

    def _again(self, token: Any) -> bool:
        for _ in range(10):
            try:
                self._stream = self._db.watch(_PIPELINE, max_await_time_ms=500, resume_after=token)
                return True
            except PyMongoError:  # each try waits for the server, 30 s
                continue
        return False
