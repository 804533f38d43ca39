"""Plain reads and writes of items and objects."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbt_runner import outages
from dbt_runner.store import batches
from dbt_runner.store.attribute_values import Item, marshal, unmarshal

if TYPE_CHECKING:
    from botocore.config import Config
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import (
        ConditionCheckTypeDef,
        PutItemInputTypeDef,
        PutTypeDef,
        ScanInputTypeDef,
        TransactWriteItemTypeDef,
    )
    from mypy_boto3_s3 import S3Client


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class StoredObject:
    """One object of the bucket as it was written: key, sha256 (hex) and size in bytes."""

    key: str
    sha256: str
    bytes: int


class AlreadyThere(Exception):
    """A conditional write found something else in its place."""


def client_config() -> Config:
    """How an attempt's clients behave: they give up soon. How long to try, `outages.Patience` decides for DynamoDB and S3, and for what
    leads to the warehouse the broker, whose drivers do not wait, and another attempt.
    """
    from botocore.config import Config

    return Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 3})


class Store:
    """One table and one bucket.

    Args:
        dynamodb: a boto3 DynamoDB client (thread-safe; so is this class).
        s3: a boto3 S3 client.
        table: the table's name.
        bucket: the bucket's name; None for callers that only read items.
        patience: how calls that an outage of AWS keeps from succeeding are tried again, beyond the clients' own retries.
    """

    def __init__(
        self,
        dynamodb: DynamoDBClient,
        s3: S3Client,
        table: str,
        bucket: str | None,
        patience: Callable[[Callable[[], Any]], Any] = outages.once,
    ) -> None:
        self._dynamodb = dynamodb
        self._s3 = s3
        self.table = table
        self._bucket = bucket
        self._patience = patience

    def patient(self, patience: outages.Patience) -> Store:
        """This store for a caller that would rather wait than fail."""
        return Store(self._dynamodb, self._s3, self.table, self._bucket, patience)

    @property
    def bucket(self) -> str:
        if self._bucket is None:
            raise ValueError("this store was opened without a bucket")
        return self._bucket

    # --- items ---------------------------------------------------------------------------------------------------

    def get(self, pk: str, sk: str) -> Item | None:
        """The item at this key, read consistently, or None."""
        key = marshal({"pk": pk, "sk": sk})
        answer = self._patience(lambda: self._dynamodb.get_item(TableName=self.table, Key=key, ConsistentRead=True))
        return unmarshal(answer["Item"]) if "Item" in answer else None

    def get_many(self, keys: Iterable[tuple[str, str]], *, sleep: Callable[[float], None] = time.sleep) -> Iterator[Item]:
        """Those items of these keys (pk, sk) that there are, in any order, in batches of 100.

        Raises:
            TimeoutError: when DynamoDB leaves keys of a batch unread for eight rounds (about a minute of throttling).
        """
        wanted = list(dict.fromkeys(keys))
        for start in range(0, len(wanted), 100):
            left: Any = {"Keys": [marshal({"pk": pk, "sk": sk}) for pk, sk in wanted[start : start + 100]], "ConsistentRead": True}
            for round_ in range(9):
                answer = self._dynamodb.batch_get_item(RequestItems={self.table: left})
                yield from (unmarshal(item) for item in answer["Responses"].get(self.table, []))
                left = answer.get("UnprocessedKeys", {}).get(self.table)
                if not left:
                    break
                if round_ == 8:
                    raise TimeoutError(f"DynamoDB did not read {len(left['Keys'])} items of table {self.table} within its retries")
                sleep(min(0.1 * 2**round_, 15.0))

    def query(
        self,
        pk: str,
        prefix: str = "",
        *,
        newest_first: bool = False,
        between: tuple[str, str] | None = None,
    ) -> Iterator[Item]:
        """All items of a partition whose sort key starts with `prefix`, or lies `between` two keys, page by page."""
        condition, values = "pk = :pk", {":pk": pk}
        if between:
            condition, values = "pk = :pk AND sk BETWEEN :from AND :to", {":pk": pk, ":from": between[0], ":to": between[1]}
        elif prefix:
            condition, values = "pk = :pk AND begins_with(sk, :prefix)", {":pk": pk, ":prefix": prefix}
        asked: dict[str, Any] = {
            "TableName": self.table,
            "KeyConditionExpression": condition,
            "ExpressionAttributeValues": marshal(values),
            "ScanIndexForward": not newest_first,
            "ConsistentRead": True,
        }
        while True:
            page = self._patience(lambda: self._dynamodb.query(**asked))
            for item in page["Items"]:
                yield unmarshal(item)
            if "LastEvaluatedKey" not in page:
                return
            asked["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def scan(self, attributes: Sequence[str], prefixes: Mapping[str, Sequence[str]]) -> Iterator[Item]:
        """Items of the whole table, page by page, read consistently: what was there when a page was asked for is in it.

        Args:
            attributes: those that are wanted, where an item has them.
            prefixes: for each of some attributes, what its value begins with, one or another.
        """
        names = {f"#{name}": name for name in {*attributes, *prefixes}}
        values = {f":{name}{number}": prefix for name, some in prefixes.items() for number, prefix in enumerate(some)}
        each = (" OR ".join(f"begins_with(#{name}, :{name}{number})" for number in range(len(some))) for name, some in prefixes.items())
        asked: ScanInputTypeDef = {
            "TableName": self.table,
            "ConsistentRead": True,
            "ProjectionExpression": ", ".join(f"#{name}" for name in attributes),
            "FilterExpression": " AND ".join(f"({condition})" for condition in each),
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": marshal(values),
        }
        while True:
            page = self._patience(lambda: self._dynamodb.scan(**asked))
            for item in page["Items"]:
                yield unmarshal(item)
            if "LastEvaluatedKey" not in page:
                return
            asked["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def delete(self, pk: str, sk: str) -> None:
        """Removes one item, if it is there."""
        self._patience(lambda: self._dynamodb.delete_item(TableName=self.table, Key=marshal({"pk": pk, "sk": sk})))

    def put(self, item: Mapping[str, Any], *, only_if_new: bool = False, only_over: str | None = None) -> None:
        """Writes one item.

        Args:
            only_over: an attribute; an item that is there already must have the same value of it.

        Raises:
            AlreadyThere: with `only_if_new`, when the key is taken; with `only_over`, when it is by another value. Nothing was changed.
        """
        if not only_if_new and only_over is None:
            self._patience(lambda: self._dynamodb.put_item(TableName=self.table, Item=marshal(item)))
            return
        put: PutItemInputTypeDef = {"TableName": self.table, "Item": marshal(item), "ConditionExpression": "attribute_not_exists(pk)"}
        if only_over is not None:
            put["ConditionExpression"] = "attribute_not_exists(pk) OR #only = :only"
            put["ExpressionAttributeNames"] = {"#only": only_over}
            put["ExpressionAttributeValues"] = marshal({":only": item[only_over]})
        try:
            if only_if_new:
                # Not again: an item that is there might be the one that this call itself wrote before its answer got lost.
                self._dynamodb.put_item(**put)
            else:
                self._patience(lambda: self._dynamodb.put_item(**put))
        except self._dynamodb.exceptions.ConditionalCheckFailedException as exc:
            raise AlreadyThere(f"{item['pk']} {item['sk']}") from exc

    def update(self, pk: str, sk: str, changes: Mapping[str, Any], *, condition: str, values: Mapping[str, Any]) -> None:
        """Changes attributes of one item, or makes it, and leaves its other ones as they are.

        Args:
            changes: attributes with their new values; one that is None is removed.
            condition: an expression that must hold of the item as it is, and still after this change: it may be tried again.
            values: what the condition names, with the colons.

        Raises:
            AlreadyThere: the condition does not hold. Nothing was changed.
        """
        new = {f":new_{name}": value for name, value in changes.items()}
        gone = [f"#{name}" for name, value in changes.items() if value is None]
        expression = "SET " + ", ".join(f"#{name} = :new_{name}" for name, value in changes.items() if value is not None)
        try:
            self._patience(
                lambda: self._dynamodb.update_item(
                    TableName=self.table,
                    Key=marshal({"pk": pk, "sk": sk}),
                    UpdateExpression=expression + (f" REMOVE {', '.join(gone)}" if gone else ""),
                    ConditionExpression=condition,
                    ExpressionAttributeNames={f"#{name}": name for name in changes},
                    ExpressionAttributeValues=marshal({**new, **values}),
                )
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException as exc:
            raise AlreadyThere(f"{pk} {sk}") from exc

    def put_many(
        self, items: Iterable[Mapping[str, Any]], *, rounds: int = 9, sleep: Callable[[float], None] = time.sleep
    ) -> list[batches.Refused]:
        """Writes items, all but those that DynamoDB refuses: see `batches.put_many`.

        Args:
            rounds: how often a batch is sent. Nine are about a minute of throttling.

        Returns:
            The items that DynamoDB refuses.

        Raises:
            TimeoutError: when a batch is still not accepted after that.
        """
        return batches.put_many(self._dynamodb, self.table, items, rounds=rounds, sleep=sleep)

    def move_pointer(
        self,
        pointer: Mapping[str, Any],
        record: Mapping[str, Any],
        *,
        expected_version: str | None,
        provided: tuple[str, str, str] | None = None,
    ) -> None:
        """Replaces an item that has a `version` and appends the record of it, both or neither.

        Args:
            expected_version: the version that the item must hold now; None when it must not exist.
            provided: key (pk, sk) of another item, which must be there in the same moment, and an attribute that it must not have.

        Raises:
            AlreadyThere: the item holds another version by now, or the other one is not as it must be. Nothing was changed.
        """
        put: PutTypeDef = {"TableName": self.table, "Item": marshal(pointer)}
        if expected_version is None:
            put["ConditionExpression"] = "attribute_not_exists(pk)"
        else:
            put["ConditionExpression"] = "version = :expected"
            put["ExpressionAttributeValues"] = marshal({":expected": expected_version})
        append: PutTypeDef = {"TableName": self.table, "Item": marshal(record), "ConditionExpression": "attribute_not_exists(pk)"}
        writes: list[TransactWriteItemTypeDef] = [{"Put": put}, {"Put": append}]
        if provided is not None:
            pk, sk, attribute = provided
            check: ConditionCheckTypeDef = {
                "TableName": self.table,
                "Key": marshal({"pk": pk, "sk": sk}),
                "ConditionExpression": "attribute_exists(pk) AND attribute_not_exists(#gone)",
                "ExpressionAttributeNames": {"#gone": attribute},
            }
            writes.append({"ConditionCheck": check})
        try:
            self._dynamodb.transact_write_items(TransactItems=writes)
        except self._dynamodb.exceptions.TransactionCanceledException as exc:
            raise AlreadyThere(f"{pointer['pk']} {pointer['sk']}") from exc

    # --- objects -------------------------------------------------------------------------------------------------

    def upload(self, path: Path, key: str) -> StoredObject:
        """Writes a file to the bucket and says what was written. The file must not change meanwhile."""
        with path.open("rb") as body:
            digest = hashlib.file_digest(body, "sha256").hexdigest()
            size = body.tell()

            def put() -> None:
                body.seek(0)
                self._s3.put_object(Bucket=self.bucket, Key=key, Body=body, Metadata={"sha256": digest})

            self._patience(put)
        return StoredObject(key, digest, size)

    def upload_body(self, body: bytes, key: str, content_type: str) -> None:
        """Writes an object that a browser is to understand."""
        digest = hashlib.sha256(body).hexdigest()
        self._s3.put_object(Bucket=self.bucket, Key=key, Body=body, ContentType=content_type, Metadata={"sha256": digest})

    def upload_new(self, body: bytes, key: str) -> None:
        """Writes an object that must not exist yet.

        Raises:
            AlreadyThere: the key is taken. Nothing was changed.
        """
        with self._conditional(key):
            self._s3.put_object(
                Bucket=self.bucket, Key=key, Body=body, Metadata={"sha256": hashlib.sha256(body).hexdigest()}, IfNoneMatch="*"
            )

    def upload_version(self, body: bytes, key: str, *, replaces: str | None) -> None:
        """Writes an object in the place of one version of an object.

        Args:
            replaces: the ETag of the version, as `download_version` returned it; None where the object must not exist yet.

        Raises:
            AlreadyThere: there is another version by now, or none any more. Nothing was changed.
        """
        metadata = {"sha256": hashlib.sha256(body).hexdigest()}
        with self._conditional(key):
            if replaces is None:
                self._s3.put_object(Bucket=self.bucket, Key=key, Body=body, Metadata=metadata, IfNoneMatch="*")
            else:
                self._s3.put_object(Bucket=self.bucket, Key=key, Body=body, Metadata=metadata, IfMatch=replaces)

    @contextlib.contextmanager
    def _conditional(self, key: str) -> Iterator[None]:
        try:
            yield
        except self._s3.exceptions.ClientError as exc:
            if exc.response.get("Error", {}).get("Code") in ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"):
                raise AlreadyThere(key) from exc
            raise

    def download(self, key: str, path: Path) -> bool:
        """Writes an object to `path`; False when there is no such object."""
        return self.download_version(key, path) is not None

    def download_version(self, key: str, path: Path) -> str | None:
        """Writes an object to `path`; returns its ETag, or None when there is no such object."""

        def get() -> str:
            answer = self._s3.get_object(Bucket=self.bucket, Key=key)
            with path.open("wb") as file:
                for chunk in answer["Body"].iter_chunks(1 << 20):
                    file.write(chunk)
            return answer["ETag"]

        try:
            etag: str = self._patience(get)
        except self._s3.exceptions.NoSuchKey:
            return None
        return etag

    def read(self, key: str, limit: int) -> bytes | None:
        """A small object; None when there is no such object.

        Args:
            limit: bytes. No more than one beyond it are read, so that the size of an object that another role wrote costs nothing here.

        Raises:
            ValueError: the object is larger than that.
        """

        def get() -> bytes:
            return self._s3.get_object(Bucket=self.bucket, Key=key)["Body"].read(limit + 1)

        try:
            body: bytes = self._patience(get)
        except self._s3.exceptions.NoSuchKey:
            return None
        if len(body) > limit:
            raise ValueError(f"{key} has more than {limit} bytes")
        return body

    def keys(self, prefix: str) -> Iterator[str]:
        """The keys that begin with `prefix`, in the order of the alphabet."""
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
            for entry in page.get("Contents", []):
                yield entry["Key"]

    def has_objects(self, prefix: str) -> bool:
        """Whether any object's key begins so."""
        answer = self._patience(lambda: self._s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix, MaxKeys=1))
        return bool(answer.get("Contents"))

    def delete_objects(self, keys: Iterable[str]) -> None:
        """Removes objects, those that are there. The bucket keeps versions: they can be brought back as long as it keeps these."""
        for key in keys:
            self._delete_object(key)

    def _delete_object(self, key: str) -> None:
        self._patience(lambda: self._s3.delete_object(Bucket=self.bucket, Key=key))

    def folders(self, prefix: str) -> Iterator[str]:
        """The names that stand between `prefix` and the next slash, in the order of the alphabet."""
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix, Delimiter="/"):
            for folder in page.get("CommonPrefixes", []):
                yield folder["Prefix"].removeprefix(prefix).rstrip("/")
