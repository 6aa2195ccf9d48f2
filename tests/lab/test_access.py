"""Every page for everybody: axe finds nothing, every control has a name, the keyboard reaches what matters."""

import itertools

import pytest

pytestmark = pytest.mark.browser
VIEWS = (
    "/",
    "/convolution",
    "/convolution?view=transposed&stride=2",
    "/convolution?view=matrix",
    "/family",
    "/runs",
    "/?field=effective",
    "/?field=why&method=integrated-gradients",
    "/?layer=head.F5",
)


@pytest.mark.parametrize(("path", "scheme"), [*itertools.product(VIEWS, ("light", "dark"))])
def test_axe_finds_nothing(lab, opened, violations, path, scheme):
    with opened(lab, path, color_scheme=scheme, bypass_csp=True) as page:
        assert violations(page) == []


def test_the_keyboard_reaches_everything_in_order(lab, opened):
    with opened(lab, "/") as page:
        reached = []
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.className || document.activeElement.tagName"))
        wanted = ["skip", "A", "quiet", "search", "BUTTON", "SELECT", "sheet", "right", "dock"]
        places = [reached.index(w) for w in wanted]
        assert places == sorted(places), reached


def test_contrast_of_words_on_every_ground(lab, opened):
    for scheme in ("light", "dark"):
        with opened(lab, "/", color_scheme=scheme) as page:
            colours = page.evaluate(
                """() => { const s = getComputedStyle(document.body);
                return Object.fromEntries(['page', 'panel', 'raised', 'wash', 'ink', 'soft', 'accent', 'warn', 'odd']
                  .map(n => [n, s.getPropertyValue('--' + n).match(/[0-9.]+/g).slice(0, 3).map(Number)])); }"""
            )
            for words, ground in itertools.product(
                ("ink", "soft", "accent", "warn", "odd"), ("page", "panel", "raised")
            ):
                assert contrast(colours[words], colours[ground]) >= 4.5, (scheme, words, ground)


def contrast(one, other):
    """Source: WCAG 2.2, relative luminance."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour):
    parts = [c / 255 for c in colour]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
