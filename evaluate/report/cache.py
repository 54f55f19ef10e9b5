"""A cache: what took long to make is kept, and made again only where what it was made from has changed."""

from collections.abc import Callable
from typing import Any

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import WRITTEN_BY
from lvae.manifests.storage.folder import Folder


def load_or_make(folder: Folder, name: str, key: object, make: Callable[[], Any]) -> Any:
    """Return the plain values in FOLDER/name.json if they were made with this key; otherwise make and keep them."""
    made_with, file = records.sha256_of({"by": WRITTEN_BY, "key": records.plain(key)}), f"{name}.json"
    data = folder.read_if_there(file)
    if data is not None:
        kept = _parse(data, f"{folder}/{file}")
        if kept.get("key") == made_with and "content" in kept:
            return kept["content"]
    content = records.plain(make())
    folder.write(file, records.dumps({"key": made_with, "content": content}))
    return content


def _parse(data: bytes, where: str) -> dict[str, Any]:
    """Return nothing where the file is damaged: what it held can be made again."""
    try:
        content = records.loads(data, where)
    except LvaeError:
        return {}
    return content if isinstance(content, dict) else {}
