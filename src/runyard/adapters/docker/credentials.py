"""Who we are to a registry. What is secret of it is in the header that goes to the Engine, and nowhere else."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field

from runyard.adapters.docker.references import HUB, registry_of, server_of
from runyard.domain.errors import ImageFailed, ImageFault, NotFound
from runyard.domain.secret import Credential
from runyard.ports.secrets import Credentials


@dataclass(frozen=True, slots=True)
class Login:
    """A credential that may be shown to a registry."""

    id: str
    headers: dict[str, str] = field(repr=False)


async def login_to(image: str, credential_id: str | None, credentials: Credentials) -> Login | None:
    """What pulls the image; None: nobody in particular. Raises `ImageFailed` for a credential that is gone, or another
    registry's.
    """
    if credential_id is None:
        return None
    try:
        known = await credentials(credential_id)
    except NotFound as error:
        raise ImageFailed(
            ImageFault.DENIED,
            f"the registry credential {credential_id} that is to pull {image} does not exist (any more): add it again, and "
            "name the new one in the endpoint's registry",
        ) from error
    registry = registry_of(image)
    if known.server is not None and server_of(known.server) != registry:
        raise ImageFailed(
            ImageFault.DENIED,
            f"the registry credential {credential_id} is for {server_of(known.server)}, and {image} comes from {registry}: "
            "name another in the endpoint's registry",
        )
    return Login(credential_id, _headers(registry, known))


def _headers(registry: str, known: Credential) -> dict[str, str]:
    address = "https://index.docker.io/v1/" if registry == HUB else registry
    said = {"username": known.username, "password": known.password, "serveraddress": address}
    return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(said).encode()).decode()}
