"""One page of an owner's records, by a cursor: the id of the last record of the page before."""

from __future__ import annotations

from typing import TypeVar

import sqlalchemy as sql
from sqlalchemy.orm import Session

from ramify.errors import RequestError
from ramify.serving.storage.records import Order, Page, is_id
from ramify.serving.storage.tables import BatchRow, FileRow, TraceRow

Row = TypeVar("Row", FileRow, BatchRow, TraceRow)


def page_of(
    session: Session,
    table: type[Row],
    owner: str,
    after: str | None,
    limit: int,
    order: Order,
    *where: sql.ColumnElement[bool],
) -> Page[Row]:
    """Up to `limit` rows of an owner behind the record `after`.

    Raises:
        RequestError: the owner has no record `after`.
    """
    mine = table.owner == owner
    conditions = [mine, *where]
    if after is not None:
        place = session.scalar(sql.select(table.serial).where(mine, table.id == after)) if is_id(after) else None
        if place is None:
            raise RequestError(f"after={after[:100]!r} is no id of this list: use the last id of the page before")
        conditions.append(table.serial > place if order == "asc" else table.serial < place)
    direction = table.serial.asc() if order == "asc" else table.serial.desc()
    rows = session.scalars(sql.select(table).where(*conditions).order_by(direction).limit(limit + 1)).all()
    return Page(tuple(rows[:limit]), has_more=len(rows) > limit)
