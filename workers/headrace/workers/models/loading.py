"""Loading models while others run: a thread for each load, so that one that takes long holds up nobody."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import msgspec

from headrace.contracts import HeadraceError, PackageError
from headrace.runtimes.base import OutOfMemory, TransientFailure
from headrace.workers.models.served_model import ServedModel

logger = logging.getLogger(__name__)


class Loaded(msgspec.Struct):
    """A load that has ended. failure: None when the model is there."""

    served: ServedModel
    failure: HeadraceError | TransientFailure | None


class Loader:
    """Loads models. All but the loads themselves happens on the thread that calls `load`.

    loading: those that are being loaded; whoever gets a `Loaded` removes its model.
    """

    def __init__(self, ended: Callable[[Loaded], None]) -> None:
        """ended: called with each load that has ended, on its own thread."""
        self._ended = ended
        self.loading: list[ServedModel] = []
        self._threads: list[threading.Thread] = []

    @property
    def is_busy(self) -> bool:
        """Whether a load runs; any thread."""
        return any(thread.is_alive() for thread in self._threads)

    def load(self, served: ServedModel) -> None:
        """Begin to load a model, unless that was begun before."""
        if served in self.loading:
            return
        self.loading.append(served)
        logger.info("model loading: %r", served)
        # A daemon: a load that never ends holds up no shutdown.
        thread = threading.Thread(target=self._load, args=(served,), name=f"headrace-load-{served!r}", daemon=True)
        self._threads = [*(each for each in self._threads if each.is_alive()), thread]
        thread.start()

    def _load(self, served: ServedModel) -> None:
        self._ended(Loaded(served, failure_to_load(served)))


def failure_to_load(served: ServedModel) -> HeadraceError | TransientFailure | None:
    """Load a model; return why that failed, None if it is there."""
    try:
        served.load()
    except TransientFailure as exc:
        return exc
    except MemoryError:
        return OutOfMemory(f"there is no memory to load {served!r}")
    except HeadraceError as exc:
        logger.error("model can't be loaded: %r: %s", served, exc.message)  # noqa: TRY400 — the message is the cause
        return exc
    except Exception as exc:  # a runtime is a plug-in, and its requests must not wait for ever
        logger.exception("model can't be loaded: %r", served)
        return PackageError(f"{served!r} can't be loaded: {type(exc).__name__}; the worker's log says why")
    return None
