"""The logger of this room."""

from __future__ import annotations

import logging

logger = logging.getLogger("headrace.queueing")
