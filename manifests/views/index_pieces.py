"""The lines of a split's index, made in pieces of 1,024 shards by whoever is free, for the command to join."""

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.shards.index import index_name
from lvae.manifests.shards.layout import SplitLayout
from lvae.manifests.storage.folder import TEMPORARY, FileRecord, Folder
from lvae.manifests.views.view import ViewPlan, finished_shard, shard_entry

SHARDS_AT_ONCE = 1024
PIECES_PER_FOLDER = 1024


def index_pieces(layout: SplitLayout) -> int:
    return -(-layout.shards // SHARDS_AT_ONCE)


def piece_of(view: ViewPlan, number: int) -> tuple[str, int]:
    """Split and number of a piece; those of all splits are numbered one behind the other."""
    for split, layout in view.layouts.items():
        if number < index_pieces(layout):
            return split, number
        number -= index_pieces(layout)
    raise IndexError("there is no such piece of an index")


def piece_name(view: ViewPlan, split: str, piece: int) -> str:
    """Of these very shards: another view of the same name has another hash."""
    return f"{TEMPORARY}/index/{view.sha256[:16]}/{split}/{piece // PIECES_PER_FOLDER:06d}/{piece:06d}.jsonl"


def write_index_piece(folder: Folder, view: ViewPlan, split: str, piece: int) -> None:
    """The lines of shards whose receipts are there."""
    layout, lines = view.layouts[split], list[bytes]()
    for number in range(piece * SHARDS_AT_ONCE, min((piece + 1) * SHARDS_AT_ONCE, layout.shards)):
        receipt = finished_shard(folder, view, split, number)
        if receipt is None:
            raise LvaeError(folder, f"shard {number} of {split} is not finished", "Run 'lvae encode' again to go on.")
        lines.append(records.line(shard_entry(view.name, receipt)))
    folder.write(piece_name(view, split, piece), b"".join(lines))


def join_index(folder: Folder, view: ViewPlan, split: str) -> FileRecord:
    """The list of a split's shards, from its pieces."""
    pieces = range(index_pieces(view.layouts[split]))
    return folder.write(index_name(view.name, split), (folder.read(piece_name(view, split, one)) for one in pieces))
