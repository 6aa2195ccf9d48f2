"""Table: rows of data under named columns, shown as text, JSON or HTML. The only formatter."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its key in the data, its heading, and its unit (shown after the heading)."""

    key: str
    heading: str
    unit: str = ""

    @property
    def title(self) -> str:
        """Heading with its unit."""
        return f"{self.heading} ({self.unit})" if self.unit else self.heading


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns; `total` is a last row set apart, `notes` are sentences below.

    >>> t = Table((Column("n", "name"), Column("p", "params")), ({"n": "C1", "p": 1560},), title="LeNet5")
    >>> print(t)
    LeNet5
    name  params
    ----  ------
    C1     1,560
    """

    columns: tuple[Column, ...]
    rows: tuple[dict[str, Any], ...]
    title: str = ""
    total: dict[str, Any] | None = None
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """Aligned plain text: numbers to the right, words to the left."""
        head = [c.title for c in self.columns]
        body = [self._cells(r) for r in self._all_rows()]
        right = [self._is_numeric(c) for c in self.columns]
        widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
        rule = "  ".join("-" * w for w in widths)
        lines = [_line(head, widths, right), rule, *(_line(b, widths, right) for b in body)]
        if self.total is not None:
            lines.insert(-1, rule)
        return "\n".join([*([printable(self.title)] if self.title else []), *lines, *map(printable, self.notes)])

    def json(self) -> str:
        """The rows as JSON; values that JSON lacks (NaN, infinity) become null."""
        return to_json({"rows": list(self.rows), "total": self.total, "notes": list(self.notes)})

    def html(self) -> str:
        """A `<table>`; every text is escaped."""
        right = [' class="num"' if self._is_numeric(c) else "" for c in self.columns]
        head = "".join(f'<th scope="col"{k}>{escape(c.title)}</th>' for c, k in zip(self.columns, right, strict=True))
        body = "".join(self._html_row(r, right) for r in self.rows)
        foot = f"<tfoot>{self._html_row(self.total, right)}</tfoot>" if self.total is not None else ""
        caption = f"<caption>{escape(self.title)}</caption>" if self.title else ""
        notes = "".join(f"<p>{escape(n)}</p>" for n in self.notes)
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody>{foot}</table>{notes}"

    def _repr_html_(self) -> str:
        return self.html()

    def _all_rows(self) -> Iterator[dict[str, Any]]:
        yield from self.rows
        if self.total is not None:
            yield self.total

    def _cells(self, row: dict[str, Any]) -> list[str]:
        return [cell(row.get(c.key)) for c in self.columns]

    def _html_row(self, row: dict[str, Any], right: Sequence[str]) -> str:
        return (
            "<tr>" + "".join(f"<td{k}>{escape(t)}</td>" for t, k in zip(self._cells(row), right, strict=True)) + "</tr>"
        )

    def _is_numeric(self, column: Column) -> bool:
        values = [r[column.key] for r in self.rows if r.get(column.key) is not None]
        return bool(values) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


@dataclass(frozen=True, slots=True)
class Tables:
    """Several tables, one below the other.

    >>> print(Tables((Table((Column("a", "a"),), ()), Table((Column("b", "b"),), ({"b": 1},)))))
    a
    -
    <BLANKLINE>
    b
    -
    1
    """

    tables: tuple[Table, ...]

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.tables))

    def html(self) -> str:
        """A `<table>` each."""
        return "".join(table.html() for table in self.tables)

    def _repr_html_(self) -> str:
        return self.html()


def cell(value: Any) -> str:
    """One value as a person reads it; what does not print (line ends, escape codes) is spelt out.

    >>> [cell(v) for v in (None, 61706, -0.00001234, 0.5, (1, 6, 28, 28))]
    ['', '61,706', '−1.234e-05', '0.5', '1x6x28x28']
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace("-", MINUS, 1)
    if isinstance(value, float):
        return number(value)
    if isinstance(value, tuple | list):
        return "x".join(str(v) for v in value)
    return printable(str(value))


def printable(text: str) -> str:
    r"""The text with what does not print (line ends, escape codes, halves of letters) spelt out.

    >>> print(printable("a\nb\x1b[2J"))
    a\nb\x1b[2J
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def number(value: float) -> str:
    """Four significant digits, a true minus sign, and no negative zero.

    >>> number(-0.0), number(-12.3456), number(0.015670), number(1e-9)
    ('0', '−12.35', '0.01567', '1e-09')
    """
    text = f"{value + 0.0:.4g}"
    return MINUS + text[1:] if text.startswith("-") else text


def short(count: int) -> str:
    """A count in three digits with its thousands as a letter.

    >>> short(416_520), short(118_013_952), short(84), short(999_999)
    ('417 k', '118 M', '84', '1 M')
    """
    for factor, letter in ((10**12, " T"), (10**9, " G"), (10**6, " M"), (1000, " k")):
        if count >= 0.9995 * factor:
            return f"{count / factor:.3g}{letter}"
    return str(count)


def to_json(data: Any) -> str:
    """JSON text that every parser takes: NaN and infinity become null, tuples become lists.

    >>> to_json({"loss": float("nan"), "shape": (1, 2)}).replace("\\n", "").replace(" ", "")
    '{"loss":null,"shape":[1,2]}'
    """
    text = json.dumps(_finite(data), indent=2, allow_nan=False, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()  # half a surrogate (odd file names) becomes its escape


def _finite(data: Any) -> Any:
    if isinstance(data, float):
        return data if data - data == 0 else None
    if isinstance(data, dict):
        return {str(k): _finite(v) for k, v in data.items()}
    if isinstance(data, tuple | list):
        return [_finite(v) for v in data]
    return data


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True))
    return "  ".join(padded).rstrip()
