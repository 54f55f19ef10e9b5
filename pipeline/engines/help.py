"""`lvae encode --help-runner NAME`: the section of docs/clusters.md on an engine, and what its workers need."""

from pathlib import Path

from lvae.manifests.errors import LvaeError

PAGE = Path(__file__).with_name("clusters.md")  # a link to the page in docs/, and a copy of it in the wheel
ENGINES = ("dask", "portable", "flink", "spark", "dataflow")
FOR_ALL = "What workers need"


def help_for(name: str) -> str:
    """LvaeError for a runner that nobody knows."""
    key = name.lower().removesuffix("runner")
    if key not in ENGINES:
        raise LvaeError(f"--help-runner {name}", "there is no such runner", f"Choose one of {', '.join(ENGINES)}.")
    page = PAGE.read_text()
    return f"{_find_section(page, key.capitalize())}\n\n{_find_section(page, FOR_ALL)}"


def _find_section(page: str, title: str) -> str:
    """Title and text, without what is only for a browser."""
    _, _, after = page.partition(f"\n## {title}\n")
    text = after.partition("\n## ")[0].strip("\n").replace("`", "")
    return f"{title}\n\n{text}"
