"""Which fault befalls which request, job or row: by script, or by a draw from the seed."""

from __future__ import annotations

from collections.abc import Iterable

from cj_pipeline.emulator.config import JOB_FAULTS, REQUEST_FAULTS, ROW_FAULTS, Fault, Settings
from cj_pipeline.emulator.random import draw
from cj_pipeline.emulator.state import State


def request_fault(settings: Settings, state: State, seed: int, route: str) -> Fault | None:
    """Return what goes wrong with this request; counts it for every fault it could suffer."""
    return next(iter(_counted(settings, REQUEST_FAULTS, state, seed, route)), None)


def job_faults(settings: Settings, state: State, seed: int, route: str) -> tuple[Fault, ...]:
    """Return all that goes wrong with a job created by this request."""
    return tuple(_counted(settings, JOB_FAULTS, state, seed, route))


def row_faults(settings: Settings, route: str) -> tuple[Fault, ...]:
    """Return the faults that rows of a job created by this request may suffer."""
    return tuple(f for f in settings.faults if f.kind in ROW_FAULTS and f.concerns(route))


def fault_of_row(faults: Iterable[Fault], seed: int, key: str, number: int) -> Fault | None:
    """Return the fault of the `number`-th row; the first that fits wins."""
    for fault in faults:
        if fault.at is not None:
            if number in fault.at:
                return fault
        elif draw(seed, "fault", fault.kind, key) < fault.rate:
            return fault
    return None


def _counted(
    settings: Settings, kinds: tuple[str, ...], state: State, seed: int, route: str
) -> list[Fault]:
    triggered = []
    for index, fault in enumerate(settings.faults):
        if fault.kind not in kinds or not fault.concerns(route):
            continue
        number = state.count(f"fault:{index}")
        if number in fault.at if fault.at is not None else _drawn(fault, seed, index, number):
            triggered.append(fault)
    return triggered


def _drawn(fault: Fault, seed: int, index: int, number: int) -> bool:
    return draw(seed, "fault", fault.kind, fault.on, index, number) < fault.rate
