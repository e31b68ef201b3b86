"""What can go wrong, said to whoever can act on it.

    RunyardError                    500  internal_error
    ├── BadRequest                  400  bad_request
    │   └── Unprocessable           422  unprocessable
    ├── Unauthorized                401  unauthorized
    ├── Forbidden                   403  forbidden
    ├── NotFound                    404  not_found
    │   └── Expired                 404  expired          (a job whose time is over)
    ├── MethodNotAllowed            405  method_not_allowed
    ├── Conflict                    409  conflict
    ├── TooLarge                    413  too_large
    ├── TooManyRequests             429  too_many_requests
    ├── TooBusy                     503  too_busy
    ├── BuildFailed                 500  build_failed     (a release's environment or image)
    ├── StartFailed                 500  start_failed     (a worker)
    │   ├── SecretMissing           500  secret_missing   (one that its environment names)
    │   └── SecretUnreadable        409  secret_unreadable  (the platform has no key for it)
    ├── WebhookFailed               502  webhook_failed   (the receiver of a job's end)
    │   └── WebhookRefused          502  webhook_refused
    └── InvalidTransition           409  invalid_transition  (a job that cannot go where it was sent)
        └── Quarantined             409  quarantined  (a job that kills workers)

The message names the id and the next step; data rides on attributes.
"""

from __future__ import annotations


class RunyardError(Exception):
    """Base of every error the platform raises on purpose."""

    code = "internal_error"
    status = 500
    retry_after_s: int | None = None
    """After so long the same request may pass; None: time alone changes nothing."""

    @property
    def message(self) -> str:
        return str(self)


class BadRequest(RunyardError):
    """The request cannot mean anything here; the message says what to change."""

    code = "bad_request"
    status = 400


class Unprocessable(BadRequest):
    """The body breaks the schema; `problems` lists each offending property path."""

    code = "unprocessable"
    status = 422

    def __init__(self, message: str, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems or (message,)


class Unauthorized(RunyardError):
    """No key, or a key this platform does not know."""

    code = "unauthorized"
    status = 401


class Forbidden(RunyardError):
    """A known key that may not do this."""

    code = "forbidden"
    status = 403


class NotFound(RunyardError):
    """Nothing of that name here (any more)."""

    code = "not_found"
    status = 404


class Expired(NotFound):
    """A job that was here; the attributes say what became of it. Times are Unix seconds."""

    code = "expired"

    def __init__(
        self,
        message: str,
        *,
        job_id: str,
        state: str,
        created_at: float,
        ended_at: float | None,
        path: str | None,
    ) -> None:
        """`path` is where it can still be read."""
        super().__init__(message)
        self.job_id = job_id
        self.state = state
        self.created_at = created_at
        self.ended_at = ended_at
        self.path = path


class MethodNotAllowed(RunyardError):
    """The path exists, the method does not; `allow` lists those that do."""

    code = "method_not_allowed"
    status = 405

    def __init__(self, message: str, allow: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.allow = allow


class Conflict(RunyardError):
    """The thing exists, in a state that does not allow this."""

    code = "conflict"
    status = 409


class InvalidTransition(Conflict):
    """A job was asked to move along an edge its state table does not have."""

    code = "invalid_transition"


class Quarantined(InvalidTransition):
    """A job whose attempts killed several workers runs again only if somebody insists; the message says how."""

    code = "quarantined"


class TooLarge(RunyardError):
    """A body or bundle over its limit; refused before it is read whole."""

    code = "too_large"
    status = 413


class TooManyRequests(RunyardError):
    """The caller has reached one of its limits."""

    code = "too_many_requests"
    status = 429

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooBusy(RunyardError):
    """A bound of the platform is reached; trying again later can work."""

    code = "too_busy"
    status = 503
    retry_after_s = 1


class BuildFailed(RunyardError):
    """The environment or image of a release could not be made; `log_tail` holds the last lines of the builder."""

    code = "build_failed"

    def __init__(self, message: str, log_tail: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.log_tail = log_tail


class StartFailed(RunyardError):
    """The runtime could not start a worker."""

    code = "start_failed"


class SecretMissing(StartFailed):
    """A worker's environment names a secret that is not there. The attributes are the first of those, and its variable."""

    code = "secret_missing"

    def __init__(self, message: str, *, secret: str, variable: str) -> None:
        super().__init__(message)
        self.secret = secret
        self.variable = variable


class SecretUnreadable(StartFailed):
    """The platform's key does not open what is sealed, or is not there."""

    code = "secret_unreadable"
    status = 409


class WebhookFailed(RunyardError):
    """The receiver of a webhook could not be reached, or gave no answer."""

    code = "webhook_failed"
    status = 502


class WebhookRefused(WebhookFailed):
    """The platform must not call this address, or it is none; trying again changes nothing."""

    code = "webhook_refused"
