"""GET /fhir/.well-known/smart-configuration: how a client gets a token here (SMART App Launch 2.2, conformance.html).

Whoever has none yet asks for it, so it takes none (2.2: "public"), and it says nothing of the data.
"""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from server.auth.assertions import ALGORITHMS
from server.auth.principals import probe
from server.auth.scopes import SCOPES
from server.auth.smart_scopes import LEVELS
from server.auth.token_endpoint import token_address

CAPABILITIES = ("client-confidential-asymmetric", "permission-patient", "permission-user", "permission-v1", "permission-v2")
"""Users come by the site's OpenID Connect issuer, which launches apps: this server has no login of its own."""

router = APIRouter(dependencies=[Depends(probe)])


@router.api_route("/.well-known/smart-configuration", methods=["GET", "HEAD"], include_in_schema=False)
async def smart_configuration(request: Request) -> Response:
    found: dict[str, Any] = {
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
        "scopes_supported": [*(f"{level}/*.cruds" for level in LEVELS), *SCOPES],
        "code_challenge_methods_supported": ["S256"],  # required of every server, whether or not it authorizes by itself
        "capabilities": list(CAPABILITIES),
    }
    address = token_address(request)
    if address is not None:
        found = {"token_endpoint": address, **found}
    body = b"" if request.method == "HEAD" else msgspec.json.encode(found)
    return Response(body, media_type="application/json", headers={"Cache-Control": "public, max-age=300"})
