"""Loading models while others run: a thread for each load, so that one that takes long holds up nobody."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import msgspec

from headrace.contracts import HeadraceError, PackageError
from headrace.runtimes.base import OutOfMemory, TransientFailure
from headrace.workers.models.served_model import Lane

logger = logging.getLogger(__name__)


class Loaded(msgspec.Struct):
    """A load that has ended. failure: None when the model is there."""

    lane: Lane
    failure: HeadraceError | TransientFailure | None


class Loader:
    """Loads the models of lanes. All but the loads themselves happens on the thread that calls `load`.

    lanes: those that are being loaded; who gets a `Loaded` removes its lane.
    """

    def __init__(self, tell: Callable[[Loaded], None]) -> None:
        """tell: called with each load that has ended, on its own thread."""
        self._tell = tell
        self.lanes: list[Lane] = []
        self._threads: list[threading.Thread] = []

    @property
    def is_busy(self) -> bool:
        """Whether a load runs; any thread."""
        return any(thread.is_alive() for thread in self._threads)

    def load(self, lane: Lane) -> None:
        """Begin to load the model of a lane, unless that was begun before."""
        if lane in self.lanes:
            return
        self.lanes.append(lane)
        logger.info("model loading: %r", lane)
        # A daemon: a load that never ends holds up no shutdown.
        thread = threading.Thread(target=self._load, args=(lane,), name=f"headrace-load-{lane!r}", daemon=True)
        self._threads = [*(each for each in self._threads if each.is_alive()), thread]
        thread.start()

    def _load(self, lane: Lane) -> None:
        self._tell(Loaded(lane, failure_to_load(lane)))


def failure_to_load(lane: Lane) -> HeadraceError | TransientFailure | None:
    """Load the model of a lane; return why that failed, None if it is there."""
    try:
        lane.load()
    except TransientFailure as exc:
        return exc
    except MemoryError:
        return OutOfMemory(f"there is no memory to load {lane!r}")
    except HeadraceError as exc:
        logger.error("model can't be loaded: %r: %s", lane, exc.message)  # noqa: TRY400 — the message is the cause
        return exc
    except Exception as exc:  # a runtime is a plug-in, and its requests must not wait for ever
        logger.exception("model can't be loaded: %r", lane)
        return PackageError(f"{lane!r} can't be loaded: {type(exc).__name__}; the worker's log says why")
    return None
