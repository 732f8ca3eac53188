"""docs/API.md lists what a program calls, from the signatures and docstrings of the package.

PYTHONPATH=. python tests/test_api_doc.py --write     writes the page again
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator

from tests.pages import DOCS, inside, rewrite
from zmqinfer import Answer, AsyncClient, CallInfo, Client, LocalCluster, Options

PAGE, BLOCK = DOCS / "API.md", "classes"
# The sections of a docstring that name things, and what the page says above them.
TITLES = {"Args": (), "Attributes": ("Attributes:", ""), "Raises": ("Raises:", "")}


def page() -> Iterator[str]:
    # Arguments that `Client` has word for word are not said again.
    said: set[str] = set()
    for cls in (Client, Options, CallInfo, Answer, AsyncClient, LocalCluster):
        yield from ["", f"## {cls.__name__}", "", *entry(cls, cls.__name__, cls.__init__, said)]  # type: ignore[misc]
        for name, method in vars(cls).items():
            if not name.startswith("_") and inspect.isfunction(method):
                yield from ["", f"### {cls.__name__}.{name}", "", *entry(method, name, method, said)]


def entry(documented: object, name: str, function: Callable[..., object], said: set[str]) -> Iterator[str]:
    if documented not in {Options, CallInfo, Answer}:
        yield from ["```python", f"{name}{signature(function)}", "```", ""]
    if inspect.iscoroutinefunction(function):
        yield "To be awaited."
    for part in (inspect.getdoc(documented) or "").split("\n\n"):
        title, _, body = part.partition(":\n")
        if title in TITLES:
            yield from items(title, inspect.cleandoc(body), said)
        elif title == "Returns":
            yield from ["", f"Returns {sentences(body)}"]
        else:
            yield sentences(part)


def signature(function: Callable[..., object]) -> inspect.Signature:
    """Without the types, which the code has, and `self`."""
    whole = inspect.signature(function)
    bare = [one.replace(annotation=one.empty) for one in whole.parameters.values() if one.name != "self"]
    return inspect.Signature(bare)


def items(title: str, body: str, said: set[str]) -> Iterator[str]:
    named = [re.sub(r"^(\w+):", r"- `\1`:", sentences(item)) for item in re.split(r"\n(?=\S)", body)]
    fresh = [item.replace("\n", "\n  ") for item in named if item not in said or title != "Args"]
    if fresh:
        yield from ["", *TITLES[title], *fresh]
    if len(fresh) < len(named):
        yield from ["", f"The {'others' if fresh else 'arguments'} are those of `Client`."]
    said.update(named)


def sentences(text: str) -> str:
    """Each on a line of its own."""
    return re.sub(r"(?<=\.) (?=[A-Z`])", "\n", " ".join(text.split()))


def test_page_says_what_the_docstrings_say() -> None:
    """If not: PYTHONPATH=. python tests/test_api_doc.py --write."""
    assert inside(PAGE, BLOCK) == "\n".join(page()), "run: PYTHONPATH=. python tests/test_api_doc.py --write"


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    rewrite(PAGE, BLOCK, page())
