"""The doctor."""

from cortex_registry.adapters.doctor import NatsNodeExaminer, PostgresFacts
from cortex_registry.entrypoints.routes.doctor import DoctorRoutes
from cortex_registry.handlers.doctor import Doctor
from cortex_registry.wiring.core import Core, Part


def doctor_part(core: Core) -> Part:
    """A route that only looks."""
    examiner = NatsNodeExaminer(core.bus)
    doctor = Doctor(core.readiness, PostgresFacts(core.database), core.observation, examiner, core.clock)
    return Part(routers=(DoctorRoutes(doctor).router(),))
