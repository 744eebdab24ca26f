"""Testing handlers without a broker, a database or waiting; docs/testing.md shows how.

`run` makes one attempt at one job, `run_batch` one of a batch handler at several. `Simulation` runs a registry with
everything that follows from its attempts: retries, snoozes, priorities, parked jobs. All decide as the product does, by
the same code, and their time is virtual: an ``asyncio.sleep(3600)`` costs nothing, a timeout fires at once.
"""

from consumers.testing.attempt import Attempt, run, run_batch
from consumers.testing.job import SimulatedJob
from consumers.testing.logs import LogLine
from consumers.testing.simulation import Simulation, SimulationError
from dispatcher.core.refusals import Refusal

__all__ = ["Attempt", "LogLine", "Refusal", "SimulatedJob", "Simulation", "SimulationError", "run", "run_batch"]
