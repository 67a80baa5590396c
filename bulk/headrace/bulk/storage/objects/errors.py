"""Errors of object stores in headrace's words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from headrace.bulk.storage.base import AccessDenied, AlreadyExists, BadLocation, InputMissing, StorageUnavailable
from headrace.contracts.errors import HeadraceError, quoted

_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"(?:<Code>|\(code: )(\w{1,100})")
_MESSAGE: Final = re.compile(r"<Message>([^<]{1,300}?)\.?(?:\s*RequestId:[^<]*)?</")

#: What stores answer with status 400 when credentials are at fault.
_CREDENTIALS: Final = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidToken",
    "TokenRefreshRequired",
    "RequestExpired",
    "AuthorizationHeaderMalformed",
    # Of single objects in the answer to a deletion of several.
    "AccessDenied",
}

#: Where obstore looks for credentials when the environment has none.
_METADATA: Final = ("169.254.169.254", "169.254.170.2", "metadata.google.internal", "/latest/api/token")

#: Where credentials belong.
_WHERE: Final = "in their environment (AWS_*, GOOGLE_*, AZURE_*)"

#: What a broken connection shows in the text of obstore, and how a person says that.
_SIGNS: Final = {
    "kind: Timeout": "no answer in time",
    "dns error": "the name of the server is unknown",
    "ConnectionRefused": "connection refused",
    "invalid peer certificate": "its certificate is not trusted",
    "InvalidContentType": "it does not speak TLS: the endpoint is http://",
}

#: Status and codes of what may succeed in a moment, besides those from 500 on. 409: two wrote one name at once.
_TRANSIENT: Final = {408, 409, 425, 429}
_TRANSIENT_CODES: Final = {"RequestTimeout", "SlowDown", "InternalError"}


class Conflict(Exception):
    """The object has another etag than was asked for."""


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Raise the errors of `storage.base` for those of obstore; Conflict when a condition failed."""
    from obstore import exceptions

    try:
        yield
    except exceptions.PreconditionError as exc:
        raise Conflict(uri) from exc
    except exceptions.AlreadyExistsError as exc:
        raise AlreadyExists(f"{quoted(uri)} exists already, and nothing is ever overwritten") from exc
    except (exceptions.InvalidPathError, ValueError) as exc:
        raise BadLocation(f"{quoted(uri)} can't be the name of an object; choose another one") from exc
    except exceptions.NotSupportedError as exc:
        raise _unknown_request(uri) from exc
    except (exceptions.BaseError, FileNotFoundError, OSError) as exc:
        raise error_of(uri, exc) from exc


def error_of(uri: str, exc: Exception) -> HeadraceError:
    """Return the error for what obstore raised, told by the status and the code that the store answered with."""
    text = str(exc)
    status = _status(exc, text)
    if status == 501:
        return _unknown_request(uri)
    kind, what, remedy = _kind(status, text)
    return kind(f"{quoted(uri)}: {what}{_reason(text, status)}; {remedy}")


def _kind(status: int, text: str) -> tuple[type[HeadraceError], str, str]:
    """Return the class of an error, what happened, and what a person does about it."""
    if status == 404:
        return InputMissing, "there is no such object or bucket", "check the location, as the workers see it"
    if any(host in text for host in _METADATA):
        return AccessDenied, "the workers have no credentials", f"set them {_WHERE}"
    if status in (401, 403) or _code(text) in _CREDENTIALS:
        return AccessDenied, "access denied", f"give the workers valid credentials that may use it, {_WHERE}"
    if status in (301, 307):
        return BadLocation, "the bucket is in another region", "set AWS_REGION of the workers"
    if 400 <= status < 500 and status not in _TRANSIENT and _code(text) not in _TRANSIENT_CODES:
        return BadLocation, "the store refused the request", "check the location"
    return StorageUnavailable, "the store can't be reached", "the job waits and tries again"


def _status(exc: Exception, text: str) -> int:
    from obstore import exceptions

    if isinstance(exc, FileNotFoundError):
        return 404
    if isinstance(exc, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)):
        return 403
    match = _STATUS.search(text)
    return int(match[1]) if match else 0


def _code(text: str) -> str:
    match = _CODE.search(text)
    return match[1] if match else ""


def _reason(text: str, status: int) -> str:
    """Return what the store said, in brackets. No more of it: the text has URLs, which may be signed."""
    message = _MESSAGE.search(text)
    said = ": ".join(each for each in (_code(text), message[1].strip() if message else "") if each)
    if not said and status:
        said = f"status {status}"
    said = said or next((words for sign, words in _SIGNS.items() if sign in text), "")
    return f" ({said})" if said else ""


def _unknown_request(uri: str) -> BadLocation:
    return BadLocation(
        f"{quoted(uri)}: this store doesn't know a request that is needed, such as a write on the condition that "
        "nothing is there; choose another store"
    )
