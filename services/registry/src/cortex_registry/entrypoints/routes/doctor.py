"""Route of the doctor."""

from fastapi import APIRouter

from cortex_contracts.rights import Right
from cortex_registry.entrypoints.access import Routes
from cortex_registry.entrypoints.schemas.doctor import ExaminationAnswer
from cortex_registry.handlers.doctor import Doctor


class DoctorRoutes:
    """/admin/doctor."""

    def __init__(self, doctor: Doctor) -> None:
        self._doctor = doctor

    def router(self) -> APIRouter:
        routes = Routes("system")
        routes.add("GET", "/doctor", self.examine, Right.SYSTEM_READ)
        return routes.router

    async def examine(self) -> ExaminationAnswer:
        """Examine the installation: Postgres, NATS, clocks, and on each node runtime, images, GPUs, disks, memory, models."""
        return ExaminationAnswer.of(await self._doctor.examine())
