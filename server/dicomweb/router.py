"""All of DICOMweb (PS3.18) below /dicomweb: search, retrieve and store."""

from __future__ import annotations

from fastapi import APIRouter

from server.dicomweb import frames, metadata, qido, rendered, retrieve, stow

router = APIRouter(prefix="/dicomweb")
for _part in (qido, retrieve, metadata, frames, rendered, stow):
    router.include_router(_part.router)
