"""Latent VAE in Python.

    from lvae import Dataset, Run

    dataset = Dataset.open("latents")    # latents, labels, keys, statistics; dataset.picture(5)
    run = Run.open("run")                # run.sample(16), run.reconstruct("photo.jpg")

Nothing heavy is imported before one of these names is used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lvae.evaluate.notebook.decodable_dataset import DecodableDataset as Dataset
    from lvae.evaluate.notebook.opened_run import Run
    from lvae.manifests.manifest import VERSION

    __version__ = VERSION

__all__ = ["Dataset", "Run", "__version__"]

_PLACES = {
    "Dataset": ("lvae.evaluate.notebook.decodable_dataset", "DecodableDataset"),
    "Run": ("lvae.evaluate.notebook.opened_run", "Run"),
    "__version__": ("lvae.manifests.manifest", "VERSION"),
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    found = globals()[name] = getattr(import_module(module), attribute)
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
