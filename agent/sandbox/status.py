"""The answers a Firestore server gives when it says no: a gRPC status and a text in production's words.

Raised by every part of the server, translated to the wire in one place (``server.py``). They are protocol answers,
not failures of the product, and so are not members of ``agent.faults``.
"""

from __future__ import annotations

import grpc

from agent.firestore.protos import Status


class StatusError(Exception):
    """A request, or one write of a BatchWrite, is answered with ``code`` and ``message``."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def proto(self) -> Status:
        """The same answer as a ``google.rpc.Status``, the form BatchWrite carries."""
        return Status(code=self.code.value[0], message=self.message)


def invalid(message: str) -> StatusError:
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> StatusError:
    return StatusError(grpc.StatusCode.NOT_FOUND, message)


def already_exists(message: str) -> StatusError:
    return StatusError(grpc.StatusCode.ALREADY_EXISTS, message)


def failed_precondition(message: str) -> StatusError:
    return StatusError(grpc.StatusCode.FAILED_PRECONDITION, message)


def aborted(message: str) -> StatusError:
    return StatusError(grpc.StatusCode.ABORTED, message)


def unimplemented(message: str) -> StatusError:
    return StatusError(grpc.StatusCode.UNIMPLEMENTED, message)
