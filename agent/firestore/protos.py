"""The raw protobuf classes of ``google.firestore.v1``: the one place the vendor's package is imported.

The official package wraps each message in a proto-plus class, which costs 100-600 us of CPU a document; the plain
classes underneath cost about 5-12. Called by everything in this room, and by the sandbox for the other side of the
same wire.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.struct_pb2 import NULL_VALUE
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import Int32Value, Int64Value
from google.rpc.status_pb2 import Status
from google.type.latlng_pb2 import LatLng  # type: ignore[import-untyped]  # the package has no stubs

SERVICE = "google.firestore.v1.Firestore"

if TYPE_CHECKING:
    from google.protobuf.message import Message

    class _Nested(type):
        """Enums and nested messages are class attributes that no stub describes."""

        def __getattr__(cls, name: str) -> Any: ...

    class _Message(Message, metaclass=_Nested):
        """The package publishes no types for its raw classes; fields are therefore ``Any``."""

        def __init__(self, **fields: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    class AggregationResult(_Message): ...

    class ArrayValue(_Message): ...

    class BatchGetDocumentsRequest(_Message): ...

    class BatchGetDocumentsResponse(_Message): ...

    class BatchWriteRequest(_Message): ...

    class BatchWriteResponse(_Message): ...

    class BeginTransactionRequest(_Message): ...

    class BeginTransactionResponse(_Message): ...

    class CommitRequest(_Message): ...

    class CommitResponse(_Message): ...

    class CreateDocumentRequest(_Message): ...

    class Cursor(_Message): ...

    class DeleteDocumentRequest(_Message): ...

    class Document(_Message): ...

    class DocumentMask(_Message): ...

    class DocumentTransform(_Message): ...

    class GetDocumentRequest(_Message): ...

    class ListCollectionIdsRequest(_Message): ...

    class ListCollectionIdsResponse(_Message): ...

    class ListDocumentsRequest(_Message): ...

    class ListDocumentsResponse(_Message): ...

    class MapValue(_Message): ...

    class PartitionQueryRequest(_Message): ...

    class PartitionQueryResponse(_Message): ...

    class Precondition(_Message): ...

    class RollbackRequest(_Message): ...

    class RunAggregationQueryRequest(_Message): ...

    class RunAggregationQueryResponse(_Message): ...

    class RunQueryRequest(_Message): ...

    class RunQueryResponse(_Message): ...

    class StructuredAggregationQuery(_Message): ...

    class StructuredQuery(_Message): ...

    class TransactionOptions(_Message): ...

    class UpdateDocumentRequest(_Message): ...

    class Value(_Message): ...

    class Write(_Message): ...

    class WriteResult(_Message): ...

else:
    from google.cloud.firestore_v1.types import (
        aggregation_result,
        common,
        document,
        firestore,
        query,
        write,
    )

    AggregationResult = aggregation_result.AggregationResult.pb()
    ArrayValue = document.ArrayValue.pb()
    BatchGetDocumentsRequest = firestore.BatchGetDocumentsRequest.pb()
    BatchGetDocumentsResponse = firestore.BatchGetDocumentsResponse.pb()
    BatchWriteRequest = firestore.BatchWriteRequest.pb()
    BatchWriteResponse = firestore.BatchWriteResponse.pb()
    BeginTransactionRequest = firestore.BeginTransactionRequest.pb()
    BeginTransactionResponse = firestore.BeginTransactionResponse.pb()
    CommitRequest = firestore.CommitRequest.pb()
    CommitResponse = firestore.CommitResponse.pb()
    CreateDocumentRequest = firestore.CreateDocumentRequest.pb()
    Cursor = query.Cursor.pb()
    DeleteDocumentRequest = firestore.DeleteDocumentRequest.pb()
    Document = document.Document.pb()
    DocumentMask = common.DocumentMask.pb()
    DocumentTransform = write.DocumentTransform.pb()
    GetDocumentRequest = firestore.GetDocumentRequest.pb()
    ListCollectionIdsRequest = firestore.ListCollectionIdsRequest.pb()
    ListCollectionIdsResponse = firestore.ListCollectionIdsResponse.pb()
    ListDocumentsRequest = firestore.ListDocumentsRequest.pb()
    ListDocumentsResponse = firestore.ListDocumentsResponse.pb()
    MapValue = document.MapValue.pb()
    PartitionQueryRequest = firestore.PartitionQueryRequest.pb()
    PartitionQueryResponse = firestore.PartitionQueryResponse.pb()
    Precondition = common.Precondition.pb()
    RollbackRequest = firestore.RollbackRequest.pb()
    RunAggregationQueryRequest = firestore.RunAggregationQueryRequest.pb()
    RunAggregationQueryResponse = firestore.RunAggregationQueryResponse.pb()
    RunQueryRequest = firestore.RunQueryRequest.pb()
    RunQueryResponse = firestore.RunQueryResponse.pb()
    StructuredAggregationQuery = query.StructuredAggregationQuery.pb()
    StructuredQuery = query.StructuredQuery.pb()
    TransactionOptions = common.TransactionOptions.pb()
    UpdateDocumentRequest = firestore.UpdateDocumentRequest.pb()
    Value = document.Value.pb()
    Write = write.Write.pb()
    WriteResult = write.WriteResult.pb()

__all__ = [
    "NULL_VALUE",
    "SERVICE",
    "AggregationResult",
    "ArrayValue",
    "BatchGetDocumentsRequest",
    "BatchGetDocumentsResponse",
    "BatchWriteRequest",
    "BatchWriteResponse",
    "BeginTransactionRequest",
    "BeginTransactionResponse",
    "CommitRequest",
    "CommitResponse",
    "CreateDocumentRequest",
    "Cursor",
    "DeleteDocumentRequest",
    "Document",
    "DocumentMask",
    "DocumentTransform",
    "Empty",
    "GetDocumentRequest",
    "Int32Value",
    "Int64Value",
    "LatLng",
    "ListCollectionIdsRequest",
    "ListCollectionIdsResponse",
    "ListDocumentsRequest",
    "ListDocumentsResponse",
    "MapValue",
    "PartitionQueryRequest",
    "PartitionQueryResponse",
    "Precondition",
    "RollbackRequest",
    "RunAggregationQueryRequest",
    "RunAggregationQueryResponse",
    "RunQueryRequest",
    "RunQueryResponse",
    "Status",
    "StructuredAggregationQuery",
    "StructuredQuery",
    "Timestamp",
    "TransactionOptions",
    "UpdateDocumentRequest",
    "Value",
    "Write",
    "WriteResult",
]
