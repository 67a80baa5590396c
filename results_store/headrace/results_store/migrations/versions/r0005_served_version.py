"""The version that a model server answered with, beside that of the package."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    # Without a default no row is rewritten, however many there are.
    op.execute("ALTER TABLE predictions ADD COLUMN served_version text")
