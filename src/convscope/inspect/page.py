"""page(): a network's costs as one HTML page: totals, the picture of it, and a tree of its modules that opens."""

from html import escape
from itertools import groupby

from convscope.graph import Recording
from convscope.inspect.drawing import draw
from convscope.inspect.flow import flow
from convscope.inspect.memory import MIB
from convscope.inspect.modules import ModuleCost, summed
from convscope.inspect.summary import Operator, Summary, seen
from convscope.table import cell, number, short

MOST_OWN = 6  # operators of a module itself, one after the other, that are lines; more are one line that opens
HEADINGS = ("output", "params", "MACs", "", "activation (MiB)", "MACs/byte", "receptive field (px)")

STYLE = """
.costs{--ink:#1c2430;--soft:#5b6675;--edge:#d5dbe3;--bar:#2f6fb3;--over:#f0f4f9;--page:#fff;
font:14px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--page);font-variant-numeric:tabular-nums}
@media(prefers-color-scheme:dark){.costs{
--ink:#e8edf3;--soft:#a3adba;--edge:#3a4452;--bar:#6fb1f0;--over:#1d2631;--page:#12171e}}
body.costs{margin:0 auto;max-width:1180px;padding:28px 20px}
.costs h1{font-size:22px;margin:0 0 18px}
.costs .totals{display:flex;flex-wrap:wrap;gap:12px 36px;margin:0 0 22px}
.costs .totals b{display:block;font-size:20px;font-weight:600}
.costs .totals span,.costs .note,.costs .op,.costs .head{color:var(--soft)}
.costs .picture{overflow:auto;max-height:560px;border:1px solid var(--edge);border-radius:8px;
margin:0 0 22px;text-align:center}
.costs .line{display:grid;grid-template-columns:minmax(180px,1fr) 120px 92px 78px 74px 76px 76px 190px;gap:10px;
padding:3px 8px;align-items:center;border-bottom:1px solid var(--edge)}
.costs .line>*{text-align:right;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.costs .line>:first-child{text-align:left}
.costs .head.line>*{white-space:normal}
.costs .line:hover{background:var(--over)}
.costs .meter{height:8px;border-radius:4px;background:var(--edge);overflow:hidden}
.costs .meter i{display:block;height:100%;background:var(--bar)}
.costs details details,.costs details>.line{margin-left:18px}
.costs summary{cursor:pointer;list-style:none}
.costs summary .line::before{content:none}
.costs summary .name::before{content:"▸ ";color:var(--soft)}
.costs details[open]>summary .name::before{content:"▾ "}
"""


def page(summary: Summary, recording: Recording, *, title: str, depth: int | None = None) -> str:
    """A whole HTML page that needs no other file, no network and no script; `depth` is that of the picture."""
    picture = draw(flow(recording, summary, depth=depth), title=title)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f'<body class="costs"><h1>{escape(title)}</h1>{_totals(summary)}<div class="picture">{picture}</div>'
        f"{_tree(summary)}</body></html>"
    )


def fragment(summary: Summary) -> str:
    """Totals and the tree of modules, to stand inside another page, such as a notebook."""
    return f'<div class="costs"><style>{STYLE}</style>{_totals(summary)}{_tree(summary)}</div>'


def _totals(summary: Summary) -> str:
    total = summary.total
    least = "≥ " if total.unknown else ""
    facts = [
        (short(total.params), "parameters"),
        (least + short(total.macs), "MACs"),
        (f"{number(total.memory.peak / MIB)} MiB", "peak memory, inference"),
    ]
    if total.training_memory:
        facts.append((f"{number(total.training_memory.peak / MIB)} MiB", "peak memory, training step"))
    return f'<div class="totals">{"".join(f"<div><b>{v}</b><span>{k}</span></div>" for v, k in facts)}</div>'


def _tree(summary: Summary) -> str:
    head = "".join(f"<span>{h}</span>" for h in ("module", *HEADINGS))
    body = _branch("", list(summary.operators), summary.total.macs)
    notes = "".join(f'<p class="note">{escape(n)}</p>' for n in summary.remarks)
    return f'<div class="line head">{head}</div>{body}{notes}'


def _branch(path: str, operators: list[Operator], macs: int) -> str:
    """The children of a module: its operators as lines (many as one that opens), its modules as lines that open."""
    depth = path.count(".") + 1 if path else 0
    groups: dict[str, list[Operator]] = {}
    for inside, run in groupby(operators, key=lambda o: o.module.split(".")[: depth + 1] if o.module else []):
        own = list(run)
        if len(inside) > depth:
            groups.setdefault(".".join(inside), []).extend(own)
        elif len([o for o in own if _works(o)]) > MOST_OWN:
            groups[f" {own[0].index}"] = own
        else:
            groups |= {f" {o.index}": [o] for o in own}
    return "".join(_node(key, group, macs) for key, group in groups.items())


def _node(path: str, group: list[Operator], macs: int) -> str:
    working = list(filter(_works, group))
    if not working:
        return ""
    if path.startswith(" ") and len(working) > 1:
        first = _line(f'<span class="name op">{len(working)} operators</span>', summed(path, group), working[-1], macs)
        return f"<details><summary>{first}</summary>{''.join(_node(path, [o], macs) for o in working)}</details>"
    name = path.rpartition(".")[2].strip()
    if len(working) == 1 and (path.startswith(" ") or working[0].module == path):
        shown = "" if path.startswith(" ") else f"{escape(name)} "
        return _line(f'{shown}<span class="op">{escape(working[0].op)}</span>', summed(path, group), working[-1], macs)
    inside = _branch(path, group, macs)
    first = _line(f'<span class="name">{escape(name)}</span>', summed(path, group), working[-1], macs)
    return f"<details{'' if '.' in path else ' open'}><summary>{first}</summary>{inside}</details>"


def _works(operator: Operator) -> bool:
    return bool(operator.receptive_field or operator.params or operator.macs)


def _line(name: str, cost: ModuleCost, last: Operator, macs: int) -> str:
    field = last.receptive_field or {}
    share = 100 * cost.macs / macs if macs else 0
    cells = (
        cell(last.output_shape),
        cell(cost.params or None),
        ("≥ " if cost.unknown else "") + (short(cost.macs) if cost.macs else ""),
        f'<div class="meter" title="{share:.1f} % of all MACs"><i style="width:{share:.1f}%"></i></div>'
        if cost.macs
        else "",
        cell(cost.activation_bytes / MIB or None),
        cell(cost.intensity if cost.macs else None),
        seen(field) if field else "",
    )
    return f'<div class="line"><span>{name}</span>{"".join(f"<span>{c}</span>" for c in cells)}</div>'
