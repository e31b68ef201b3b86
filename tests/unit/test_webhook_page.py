"""The receivers that the page on webhooks shows do what they say."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks

from runyard.domain.webhook import DeliveryId, SigningSecret, rotated, secret_of, signed_headers

PAGE = Path(__file__).parents[2] / "docs/howto/receive-webhooks.md"
BODY = b'{"id":"job-1","status":"COMPLETED"}'
OLD, NEW = secret_of(b"o" * 32), secret_of(b"n" * 32)


@pytest.fixture(params=re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL), ids=["library", "by hand"])
def receive(request: pytest.FixtureRequest) -> Any:
    names: dict[str, Any] = {}
    exec(request.param, names)
    return names["receive"]


def headers(at: float) -> dict[str, str]:
    secrets = rotated([SigningSecret(value=OLD, created_at=0)], NEW, at)
    return signed_headers(DeliveryId("msg_1"), BODY, secrets, at)


def test_they_read_what_is_signed_with_either_secret(receive: Any) -> None:
    for secret in (OLD, NEW):
        assert json.loads(BODY) == receive(secret, BODY, headers(time.time()))


def test_they_refuse_what_is_changed_old_or_of_somebody_else(receive: Any) -> None:
    now = time.time()
    for secret, body, at in ((OLD, BODY + b" ", now), (OLD, BODY, now - 301), (secret_of(b"x" * 32), BODY, now)):
        with pytest.raises((ValueError, standardwebhooks.WebhookVerificationError)):
            receive(secret, body, headers(at))
