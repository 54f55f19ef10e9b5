"""Parquet in the layout of Hugging Face's image column: a file, a folder of .parquet files, or a pattern.

The pictures are a column of struct<bytes, path>, or of plain binary: the one called image (or img, jpg, png...), or the
only one of such a type. A column label holds numbers, whose names stand in the schema's "huggingface" metadata if
anywhere, or holds names: integers, whole floats and decimals, booleans, text, dictionaries of them, lists of one. A
column of anything else is left aside with a warning. Keys are numbers of rows, after the file's name where there are
several.

Pictures are not read to be listed, so the rows' length is -1. A picture whose bytes are null (its path only) is
rejected when it is read. Row groups are read forwards: a huge one is gone through again by every worker.
"""

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from lvae.encode.files import locations, naming
from lvae.encode.files.left_out import LeftOut, no_images
from lvae.encode.files.patterns import base_of
from lvae.encode.images import ImageRejected
from lvae.encode.sources.base import Notes
from lvae.encode.sources.label_values import ClassNumbers, NotALabelError, as_label
from lvae.encode.sources.labels import parse_json
from lvae.encode.sources.reading.sequential import Forwards
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.rows import UNLABELLED, ImageRow

IMAGE_COLUMNS = ("image", "img", "images", "jpg", "jpeg", "png", "webp", "picture", "pixel_values", "bytes")
LABEL_COLUMNS = ("label", "labels", "class", "target", "cls", "fine_label")
NO_CLASS = re.compile(r"(.*_)?(id|index|idx|width|height|size|__index_level_0__)|.*(Id|ID)", re.DOTALL)
LABELS_AT_A_TIME = 65_536
LARGE_GROUP = 20_000  # rows
WHOLE_BYTES = 256 << 20  # of a row group, up to which its pictures are read at once
SPLIT = re.compile(r"(train|training|valid|validation|val|dev|test|eval)(?![a-z])", re.IGNORECASE)
FAULTS = (pa.ArrowException, OSError, MemoryError, ValueError, LookupError)


class Columns(NamedTuple):
    """What a file's schema says: the pictures' column, whether it is a struct, the label column, the classes' names."""

    image: str
    in_struct: bool
    label: str | None
    classes: tuple[str, ...] | None


class ParquetSource(Notes):
    """See the module. `classes` is final once `rows()` is through."""

    kind = "parquet"

    def __init__(self, location: str, files: list[str]):
        """The files are named relative to the location's `base_of`."""
        super().__init__()
        self.location = locations.resolve(location)
        self._files = files
        self.classes: tuple[str, ...] | None = None

    def rows(self) -> Iterator[ImageRow]:
        self.begin_again()
        numbers, images = self._gather_classes() if self.reads_labels else None, 0
        for name in self._files:
            path = path_of(self.location, name)
            with open_parquet(path, self.seen, name) as file:
                columns, schema, row = columns_of(file, path), file.schema_arrow, 0
                label_column = columns.label if numbers is not None else None
                for group in range(file.num_row_groups):
                    self._warn_of_size(name, file.metadata.row_group(group).num_rows)
                    for number, label in enumerate(_read_labels(file, group, label_column, path)):
                        key = f"{row:06}" if len(self._files) == 1 else f"{name}/{row:06}"
                        chosen = UNLABELLED if numbers is None else numbers.number(as_label(label))
                        naming.count_unlabelled(self.counts, chosen)
                        yield ImageRow(key, name, -1, -1, f"{group}:{number}", chosen)
                        row += 1
                images += row
        left_out = LeftOut(self.counts)
        if locations.is_folder(self.location):
            self.account_for_rest(self.location, self._files, left_out)
        if not images:
            raise no_images(self.location, self.counts)
        left_out.warn(self)
        if numbers is not None and not self.classes:
            self._warn_of_columns(columns, schema)
        self._warn_of_splits()
        naming.warn_of_unlabelled(self, "have no label, or -1")

    def _gather_classes(self) -> ClassNumbers | None:
        """All labels, gathered, with names that have to be the same in all files; None where there are none to use."""
        first, numbers = None, ClassNumbers()
        for name in self._files:
            path = path_of(self.location, name)
            with open_parquet(path) as file:
                columns = columns_of(file, path)
                columns = columns._replace(classes=_read_class_names(file.schema_arrow, columns.label, path))
                if first is not None and columns != first:
                    raise LvaeError(path, f"has other columns or class names than {self._files[0]}")
                first = columns
                try:
                    for group in range(file.num_row_groups):
                        where = f"{path}: row group {group}"
                        for label in _read_labels(file, group, columns.label, path):
                            numbers.add(as_label(label), where)
                except NotALabelError as error:
                    column = file.schema_arrow.field(columns.label)
                    self.warn(
                        "labels not used",
                        f"{path}: the column {column.name!r} holds {column.type!s:.60}, which cannot be classes "
                        f"({error!s:.80}): all images are unlabelled. --labels FILE gives labels",
                    )
                    self.classes = None
                    return None
        self.classes = numbers.settle()
        if first is not None and first.classes is not None and not numbers.named:
            if len(self.classes or ()) > len(first.classes):
                label = f"the label {len(self.classes or ()) - 1}"
                raise LvaeError(
                    self.location, f"{label} is out of range: its schema names {len(first.classes)} classes"
                )
            self.classes = first.classes
        return numbers

    def _warn_of_splits(self) -> None:
        splits = sorted({found[1].lower() for name in self._files if (found := SPLIT.match(name.rpartition("/")[2]))})
        if len(splits) > 1:
            self.warn(
                "splits",
                f"the splits {', '.join(splits)} are taken together. Give a pattern for one of them, such as "
                f"{locations.join(base_of(self.location), splits[0] + '*.parquet')}",
            )

    def _warn_of_columns(self, columns: Columns, schema: pa.Schema) -> None:
        """Where no image has a label: columns that may hold some."""
        some = [field.name for field in schema if field.name != columns.image and _may_hold_classes(field)]
        if columns.label is not None:
            self.warn("labels not used", f"no image has a label: the column {columns.label!r} is empty")
        elif some:
            names = ", ".join(map(repr, some))
            text = f"no image has a label, and no column is called label, but {names:.200}. --labels FILE gives labels"
            self.warn("labels not used", text)

    def _warn_of_size(self, name: str, rows: int) -> None:
        if rows > LARGE_GROUP and not any(warning.kind == "slow" for warning in self.warnings):
            self.warn(
                "slow",
                f"{name} has {rows} rows in a row group, and a row group is read from its start: "
                "write it again with row_group_size=1000",
            )


class ParquetReader:
    """Reads what a ParquetSource listed, keeping the place in one row group."""

    def __init__(self, location: str):
        self.location = locations.resolve(location)
        self._groups = Forwards(self._read_pictures)

    def __reduce__(self) -> tuple[type["ParquetReader"], tuple[str]]:
        return type(self), (self.location,)

    def read(self, row: ImageRow) -> bytes:
        group, _, number = row.member.partition(":")
        try:
            data = self._groups.read((row.container, int(group)), int(number))
        except IndexError as error:
            raise LvaeError(row.container, "shorter than when it was listed", "Scan the source again.") from error
        if data is None:
            raise ImageRejected("a path instead of the picture's bytes, in its Parquet file")
        if len(data) > naming.MAX_MEMBER_BYTES:
            raise ImageRejected(f"a file of more than {naming.MAX_MEMBER_BYTES >> 20} MiB")
        return data

    def close(self) -> None:
        self._groups.close()

    def _read_pictures(self, stream: tuple[str, int]) -> Iterator[bytes | None]:
        container, group = stream
        path = path_of(self.location, container)
        file = locations.Watched(locations.open_file(path))
        try:
            parquet = pq.ParquetFile(pa.PythonFile(file, "r"), pre_buffer=False)
            columns = columns_of(parquet, path)
            column = f"{columns.image}.bytes" if columns.in_struct else columns.image
            if parquet.metadata.row_group(group).total_byte_size > WHOLE_BYTES:
                # else a row group's column is held whole, which a lying page cannot make larger
                parquet = pq.ParquetFile(pa.PythonFile(file, "r"), pre_buffer=False, buffer_size=locations.BUFFER_BYTES)
            # one at a time: a dictionary of one large picture can stand for any number of rows
            for batch in parquet.iter_batches(1, [group], [column], use_threads=False):
                for value in batch.column(0).to_pylist():
                    yield value["bytes"] if isinstance(value, dict) else value
        except FAULTS as error:
            file.raise_fault()  # pyarrow calls its own faults OSError, too
            raise ImageRejected("damaged in its Parquet file") from error
        finally:
            file.close()


def path_of(location: str, container: str) -> str:
    return location if locations.name_of(location) == container else locations.join(base_of(location), container)


@contextmanager
def open_parquet(path: str, seen: locations.Seen | None = None, name: str = "") -> Iterator[pq.ParquetFile]:
    """A Parquet file to look at; everything that goes wrong with it meanwhile is an LvaeError."""
    try:
        if seen is not None:
            found = locations.status(path)
            seen.add(name, found.size, found.stamp)
        with locations.Watched(locations.open_file(path)) as file:
            schema = pq.read_schema(pa.PythonFile(file, "r"))
            text = [field.name for field in schema if _holds_text(field.type)]
            yield pq.ParquetFile(pa.PythonFile(file, "r"), pre_buffer=False, read_dictionary=text)
    except FAULTS as error:
        reason = locations.explain(error) if isinstance(error, OSError) else " ".join(str(error).split())[:200]
        raise LvaeError(path, f"cannot be read as Parquet ({reason})") from error


def columns_of(file: pq.ParquetFile, path: str) -> Columns:
    schema: pa.Schema = file.schema_arrow
    found = [field.name for field in schema if _holds_pictures(field.type)]
    known = [name for wanted in IMAGE_COLUMNS for name in found if name.lower() == wanted]
    if not known and len(found) != 1:
        raise LvaeError(
            path,
            (f"has no column of pictures called image, but {', '.join(found or schema.names) or 'nothing':.200}"),
            "Pictures are struct<bytes, path> or binary.",
        )
    image = (known or found)[0]
    if schema.names.count(image) > 1:
        raise LvaeError(path, f"has two columns {image!r}")
    by_name = {name.lower(): name for name in reversed(schema.names) if name != image and schema.names.count(name) == 1}
    labels = [by_name[name] for name in LABEL_COLUMNS if name in by_name]
    label = next((name for name in labels if not _is_nested(schema.field(name).type)), next(iter(labels), None))
    return Columns(image, pa.types.is_struct(schema.field(image).type), label, None)


def _read_class_names(schema: pa.Schema, label: str | None, path: str) -> tuple[str, ...] | None:
    """Those that the datasets library writes into the schema."""
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None or label is None:
        return None
    found: Any = parse_json(text, f"{path}: its huggingface metadata")
    for step in ("info", "features", label):
        found = found.get(step) if isinstance(found, dict) else None
    if isinstance(found, dict) and isinstance(found.get("feature"), dict):
        found = found["feature"]  # of a list of one
    found = found.get("names") if isinstance(found, dict) else None
    if found is None:
        return None
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found) or len(set(found)) < len(found):
        raise LvaeError(path, "the class names in its huggingface metadata are not a list of different names")
    return tuple(found) or None


def _read_labels(file: pq.ParquetFile, group: int, column: str | None, path: str) -> Iterator[Any]:
    """The label of every row in a row group, None where there is none."""
    rows = file.metadata.row_group(group).num_rows
    if column is None:
        yield from itertools.repeat(None, rows)
        return
    count = 0
    for batch in file.iter_batches(LABELS_AT_A_TIME, [group], [column], use_threads=False):
        values = batch.column(0)
        count += len(values)
        if isinstance(values, pa.DictionaryArray):  # never made into one string a row: a dictionary can be a bomb
            texts = values.dictionary.to_pylist()
            yield from (None if index is None else texts[index] for index in values.indices.to_pylist())
        else:
            yield from values.to_pylist()
    if count != rows:
        raise LvaeError(path, f"damaged: row group {group} has {count} labels for {rows} rows")


def _may_hold_classes(field: pa.Field) -> bool:
    kind = field.type
    whole = pa.types.is_integer(kind) or pa.types.is_boolean(kind)  # text is as often a caption
    return bool(naming.LABEL_NAMES.search(field.name) or (whole and not NO_CLASS.fullmatch(field.name)))


def _holds_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_nested(kind: pa.DataType) -> bool:
    return bool(pa.types.is_nested(kind) or pa.types.is_temporal(kind))


def _holds_pictures(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))
