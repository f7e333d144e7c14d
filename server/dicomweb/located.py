"""An instance of the archive as a file of this machine, for what needs one: frames and pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from archive.errors import FrameOutOfRange, NoPixelData, NotInArchive, Undecodable
from archive.store import Store
from server.dicomweb.errors import BytesMissing, NotRenderable, TargetNotFound
from server.dicomweb.targets import Target


@contextmanager
def located(store: Store, target: Target) -> Iterator[Path]:
    """The file, a copy for the while where the archive is elsewhere. The archive's errors become those of this folder."""
    try:
        if (path := store.local_path(target.sha256)) is not None:
            yield path
        else:
            with tempfile.TemporaryDirectory(prefix="anamnesis-") as folder:
                yield store.fetch(target.sha256, Path(folder))
    except NotInArchive:
        raise BytesMissing(f"the archive lacks the bytes of instance {target.sop_instance_uid}") from None
    except (FrameOutOfRange, NoPixelData) as error:
        raise TargetNotFound(f"instance {target.sop_instance_uid}: {error}") from error
    except Undecodable as error:
        raise NotRenderable(f"instance {target.sop_instance_uid}: {error}; ask for it as it is stored") from error


def require_frames(target: Target, numbers: list[int]) -> None:
    """Raises TargetNotFound unless the instance has pixels and all these frames."""
    if not target.has_pixel_data:
        raise TargetNotFound(f"instance {target.sop_instance_uid} has no pixel data, and so no frames")
    beyond = [str(number) for number in numbers if number > target.frames]
    if beyond:
        raise TargetNotFound(f"instance {target.sop_instance_uid} has {target.frames} frames; there is no {', '.join(beyond)}")
