"""What stands for the objects of a pickle: data, never the objects themselves."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


class Table:
    """A dictionary, or an object of a class that is not known here: its name, and the pairs put into it, in order.

    Keys may be anything, so nothing is hashed; later pairs win.
    name: "dict" for dictionaries. initial: pairs given to the constructor, as Python 2 wrote ordered dictionaries.
    state: what an object would restore itself from.
    """

    __slots__ = ("initial", "items", "name", "state")

    def __init__(self, name: str = "dict", initial: object = None):
        self.name, self.initial = name, initial
        self.state: object = None
        self.items: list[tuple[object, object]] = []

    @property
    def is_dictionary(self) -> bool:
        """Of a known class, or of any with pairs in it: Lightning's AttributeDict, omegaconf's, EasyDict."""
        return self.name == "dict" or bool(self.items)

    @property
    def length(self) -> int:
        return len(self.items) + len(self._given)

    @property
    def _given(self) -> Sequence[object]:
        given = self.initial.items if isinstance(self.initial, Table) else self.initial
        return given if isinstance(given, list | tuple) else ()

    def pairs(self) -> Iterator[tuple[object, object]]:
        for pair in self._given:
            if isinstance(pair, list | tuple) and len(pair) == 2:
                yield pair[0], pair[1]
        yield from self.items

    def named(self) -> dict[str, object]:
        """The pairs whose key is text."""
        return {key: value for key, value in self.pairs() if isinstance(key, str)}

    # What an unpickler does to objects

    def __setitem__(self, key: object, value: object) -> None:
        self.items.append((key, value))

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __call__(self, *arguments: object) -> "Table":
        return Table("result")

    def append(self, item: object) -> None:
        """Subclasses of lists, queues and sets: not kept."""

    extend = add = append


class Stateless:
    """What a pickle cannot change once it is made."""

    def __setstate__(self, state: object) -> None:
        pass


@dataclass(frozen=True)
class PickledStorage(Stateless):
    """Numbers that stand elsewhere in the file. `elements` counts bytes where dtype is "untyped"."""

    key: str
    dtype: str  # as in torch, "float32"; "untyped"; or "?" for one not known here
    elements: int
    offset: int = 0  # where a view of another storage begins, in elements


@dataclass(frozen=True)
class PickledTensor(Stateless):
    """A tensor within a storage of `elements` numbers; offset and stride in numbers, checked to lie within."""

    storage: PickledStorage
    dtype: str
    elements: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
