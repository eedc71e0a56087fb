"""Python client of Carrel, for threads (`Carrel`) and for event loops (`AsyncCarrel`).

from carrel_client import Carrel

carrel = Carrel(api_key="carrel_key_…")
carrel.documents.create(text="Loans last four weeks.", title="Rules").wait()
print(carrel.query("how long may I keep a book?").passages[0].text)
"""

# Names are imported when they are first used: most programs need one half, and few of the models.
from importlib import import_module

from carrel_client._names import HOMES

__all__ = sorted(HOMES)


def __getattr__(name: str) -> object:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
