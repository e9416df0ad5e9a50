"""One declaration for each option: its Python field, TOML key, flag, range and help come from here.

A field declared with :func:`option` takes its value in any form that a user may give, text included:
``window="5"``, ``window = 5`` and ``--window 5`` are the same. :func:`settle` reads and checks all fields of
an object; what it refuses names the field, which the command line shows as a flag.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from fractions import Fraction
from typing import Any

from align.schemas.errors import UsageError
from align.schemas.time import NS

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_LONGEST = 40  # digits of a number: 1e999999999 would be built digit by digit

Read = Callable[[Any], Any]
"""From any accepted form to the value; a ``ValueError`` says what it is not."""


@dataclass(frozen=True, slots=True)
class Option:
    """What is known of an option beside its name, type and default.

    Attributes:
        help: one line.
        read: see :data:`Read`.
        metavar: stands for the value in help texts.
        low: least value; None for no bound.
        high: greatest value.
        unit: of the value.
        choices: the only values, or the only members of a list.
        typed: the default as a user would type it, where its value does not show that.
    """

    help: str
    read: Read
    metavar: str = ""
    low: float | None = None
    high: float | None = None
    unit: str = ""
    choices: tuple[str, ...] = ()
    typed: str = ""


@dataclass(frozen=True, slots=True)
class Declared:
    """An option with the name and default of its field."""

    name: str
    default: Any
    option: Option

    @property
    def flag(self) -> str:
        """As it is typed."""
        return "--" + self.name.replace("_", "-")

    @property
    def is_switch(self) -> bool:
        """Whether it is given without a value."""
        return self.default is False


def option(default: Any, help: str, read: Read | None = None, **facts: Any) -> Any:
    """A dataclass field that is an option; how its value is read follows from the default's type."""
    known = Option(help, read or _READERS[type(default)], **facts)
    return field(default=default, metadata={"option": known})


def declared(kind: type) -> Iterator[Declared]:
    """The options of a class, in the order of its fields."""
    for one in fields(kind):
        if "option" in one.metadata:
            default = None if one.default is MISSING else one.default
            yield Declared(one.name, default, one.metadata["option"])


def settle(instance: Any) -> None:
    """Read and check every option of a frozen dataclass that is being made.

    Raises:
        UsageError: a value that cannot be meant; it names the field.
    """
    for one in declared(type(instance)):
        given = getattr(instance, one.name)
        if given is not None:
            object.__setattr__(instance, one.name, _checked(one, given))


def refuse(name: str, detail: str) -> UsageError:
    """The error of an option: its name comes first, and becomes a flag on the command line."""
    return UsageError(f"{name} {detail}", option=name)


def _checked(one: Declared, given: Any) -> Any:
    known = one.option
    try:
        value = known.read(given)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise UsageError(f"{one.name}: {error}", option=one.name) from None
    for member in value if isinstance(value, tuple) else (value,):
        if known.choices and member not in known.choices:
            names = ", ".join(known.choices)
            raise refuse(one.name, f"knows {names}; not {member!r}{hint(str(member), known.choices)}")
    if isinstance(value, (int, float)) and not _is_between(value, known.low, known.high):
        raise refuse(one.name, f"must be {range_text(known)}")
    return value


def _is_between(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or low <= value) and (high is None or value <= high)


def range_text(known: Option) -> str:
    """The values that are allowed, in words."""
    unit = f" {known.unit}" if known.unit else ""
    if known.high is None:
        return f"at least {known.low:.12g}{unit}"
    return f"between {known.low or 0:.12g} and {known.high:.12g}{unit}"


def hint(name: str, known: Iterable[str]) -> str:
    """A hint at the closest known name of an option or of its values, or nothing."""
    close = get_close_matches(name, tuple(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint at the closest known name in a data set, or nothing."""
    close = get_close_matches(name, tuple(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def text(given: Any) -> str:
    """A text."""
    return str(given)


def switch(given: Any) -> bool:
    """Yes or no: a bool, or ``on``, ``off``, ``true``, ``false``."""
    known = {"on": True, "true": True, "off": False, "false": False}
    if isinstance(given, bool):
        return given
    if str(given).lower() not in known:
        raise ValueError(f"{given!r} is neither on nor off")
    return known[str(given).lower()]


def integer(given: Any) -> int:
    """A whole number."""
    try:
        if isinstance(given, bool):
            raise ValueError
        exact = given if isinstance(given, int) else _fraction(given)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{given!r} is not a whole number") from None
    if exact != int(exact):
        raise ValueError(f"{given!r} is not a whole number")
    return int(exact)


def number(given: Any) -> float:
    """A number; ``inf`` is one."""
    try:
        return float(given)
    except (ValueError, TypeError):
        raise ValueError(f"{given!r} is not a number") from None


def seconds(given: Any) -> float:
    """Seconds that are a whole number of nanoseconds: a float holds those of an hour exactly."""
    try:
        exact = _fraction(given) * NS
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{given!r} is not a number of seconds") from None
    if exact.denominator != 1:
        raise ValueError(f"{given} s is not a whole number of nanoseconds")
    return float(exact / NS)


def _fraction(given: Any) -> Fraction:
    spelled = repr(given) if isinstance(given, float) else str(given)
    if len(spelled) > _LONGEST or ("e" in spelled.lower() and not isinstance(given, float)):
        raise ValueError
    return Fraction(spelled)


def size(given: Any) -> int:
    """Bytes of ``512MB``, ``1GiB``, ``100000``."""
    spelled = str(given).strip().upper()
    digits = spelled.rstrip("KMGIB")
    try:
        return int(float(digits) * _UNITS[spelled[len(digits) :]])
    except (ValueError, KeyError, OverflowError):
        raise ValueError(f"{given!r} is not a size; write e.g. 512MB") from None


def words(given: Any) -> tuple[str, ...]:
    """A list: ``a,b`` or an iterable of texts; doubles and blanks are dropped."""
    members = given.split(",") if isinstance(given, str) else given
    return tuple(dict.fromkeys(word.strip() for word in map(str, members) if word.strip()))


def shares(given: Any) -> str:
    """``train=0.9,val=0.1``, or the same as a table."""
    if isinstance(given, Mapping):
        return ",".join(f"{name}={share}" for name, share in given.items())
    return ",".join(given) if isinstance(given, (list, tuple)) else str(given)


def processes(given: Any) -> int:
    """A number of processes; ``auto`` is 0."""
    spelled = str(given)
    if spelled == "auto" or (given == 0 and isinstance(given, int)):
        return 0
    if not (spelled.isascii() and spelled.isdecimal()) or int(spelled) == 0:
        raise ValueError(f"{given!r} is neither auto nor a positive number")
    return int(spelled)


_READERS: dict[type, Read] = {bool: switch, int: integer, float: number, str: text, tuple: words}
