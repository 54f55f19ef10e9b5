"""Writes to an object store that succeed only where the object is still as it was seen.

Each store has its own words for this: S3 compares ETags (If-Match), Google Cloud Storage generations, Azure ETags.
Stores that are not named here cannot hold a dataset: a lease and a manifest would be no more than a hope there.
"""

import threading
from typing import Any

PROTOCOLS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")
VERSIONS = {"s3": "ETag", "s3a": "ETag", "gs": "generation", "gcs": "generation", "memory": "created"}  # else "etag"

_memory = threading.Lock()


def protocol_of(url: str) -> str:
    return url.partition("://")[0]


def version_of(protocol: str, info: dict[str, Any]) -> str:
    """What changes with every write of an object, from what the store says of it."""
    return str(info[VERSIONS.get(protocol, "etag")])


def replace(files: Any, protocol: str, path: str, data: bytes, version: str) -> None:
    """Write an object that still has this version; FileExistsError or FileNotFoundError where it has not."""
    if protocol in ("s3", "s3a"):
        _replace_on_s3(files, path, data, version)
    elif protocol in ("gs", "gcs"):
        _replace_on_google(files, path, data, version)
    elif protocol == "memory":
        _replace_in_memory(files, path, data, version)
    else:
        _replace_on_azure(files, path, data, version)


def _replace_on_s3(files: Any, path: str, data: bytes, version: str) -> None:
    bucket, key, _ = files.split_path(path)
    try:
        files.call_s3("put_object", Bucket=bucket, Key=key, Body=data, IfMatch=version)
    except OSError as error:
        answer = getattr(error.__cause__, "response", {})
        if answer.get("Error", {}).get("Code") in ("PreconditionFailed", "412"):
            raise FileExistsError(path) from error
        raise


def _replace_on_google(files: Any, path: str, data: bytes, version: str) -> None:
    from urllib.parse import quote

    bucket, key, _ = files.split_path(path)
    address = f"{files._location}/upload/storage/v1/b/{quote(bucket)}/o"
    headers = {"Content-Type": "application/octet-stream"}
    files.call("POST", address, uploadType="media", name=key, ifGenerationMatch=version, headers=headers, data=data)


def _replace_on_azure(files: Any, path: str, data: bytes, version: str) -> None:
    from azure.core import MatchConditions

    try:
        files.pipe_file(path, data, etag=version, match_condition=MatchConditions.IfNotModified)
    except Exception as error:
        if type(error).__name__ == "ResourceModifiedError":
            raise FileExistsError(path) from error
        raise


def _replace_in_memory(files: Any, path: str, data: bytes, version: str) -> None:
    with _memory:
        if version_of("memory", files.info(path)) != version:
            raise FileExistsError(path)
        files.pipe_file(path, data)
