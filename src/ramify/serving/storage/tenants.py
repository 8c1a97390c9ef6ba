"""What an owner's records take, and its quota: counted in the transaction that changes the records."""

from __future__ import annotations

import sqlalchemy as sql
from sqlalchemy.orm import Session

from ramify.errors import QuotaError
from ramify.serving.storage.database import insert
from ramify.serving.storage.tables import TenantRow


def charge(session: Session, owner: str, num_bytes: int, quota_bytes: int = 0) -> None:
    """Add bytes to what an owner stores (negative: give back). A quota of 0 is none.

    Raises:
        QuotaError: it would be more than the quota; the transaction must end.
    """
    start = insert(session, TenantRow).values(owner=owner, num_bytes=num_bytes)
    change = start.on_conflict_do_update(
        index_elements=[TenantRow.owner], set_={"num_bytes": TenantRow.num_bytes + start.excluded.num_bytes}
    )
    stored = session.execute(change.returning(TenantRow.num_bytes)).scalar_one()
    if quota_bytes and num_bytes > 0 and stored > quota_bytes:
        raise QuotaError(
            f"{stored:,} bytes would be stored, and {quota_bytes:,} are allowed: delete files, responses or traces"
        )


def stored_bytes(session: Session, owner: str) -> int:
    """Bytes that an owner's records take."""
    return session.scalar(sql.select(TenantRow.num_bytes).where(TenantRow.owner == owner)) or 0
