"""One DICOM instance."""

from __future__ import annotations

import strawberry

from domain.condition import Level
from server.graphql.nodes.node import Tagged, common
from server.graphql.nodes.series import Series, series_of
from server.graphql.reading import Reading
from server.graphql.rows import Row
from server.graphql.scalars import Long


@strawberry.type(description="One DICOM instance (a file).")
class Instance(Tagged):
    sop_instance_uid: str = strawberry.field(description="SOP Instance UID (0008,0018).")
    sop_class_uid: str = strawberry.field(description="SOP Class UID (0008,0016).")
    transfer_syntax_uid: str = strawberry.field(description="As it is stored.")
    sha256: str = strawberry.field(description="Digest of the stored file, in hexadecimal digits.")
    bytes: Long = strawberry.field(description="Size of the stored file.")
    frame_count: int = strawberry.field(description="Frames; 1 of a single image.")

    @strawberry.field(description="The series that it is of.")
    def series(self) -> Series:
        return series_of(self.row, self.reading)  # type: ignore[return-value]


_OWN = ("sop_instance_uid", "sop_class_uid", "transfer_syntax_uid", "sha256", "bytes", "frame_count")


def instance(row: Row, reading: Reading) -> Instance:
    return Instance(**common(Level.INSTANCE, row, reading), **{name: row[name] for name in _OWN})
