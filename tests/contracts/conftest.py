"""Property tests look for wrong answers, not for slow ones: a busy machine must not fail them."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("headrace", deadline=None)
settings.load_profile("headrace")
