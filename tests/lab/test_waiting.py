"""Nothing for what is quick, a spinner for less than a second, then how far it is and a way to end it; an error keeps
the last good view."""

import time

import pytest

pytestmark = pytest.mark.browser
AT = "/?layer=features.C3&unit=0,5,3,4"


def seen(page):
    """Whether the spinner and the bar show."""
    return page.evaluate("""() => [getComputedStyle(document.querySelector('.spinner')).visibility === 'visible',
      document.querySelector('.work-bar') !== null]""")


SLOW = """([needle, ms]) => {
  const real = window.fetch;
  window.fetch = (path, options) => !path.includes(needle) ? real(path, options) : new Promise((done, failed) => {
    options.signal?.addEventListener('abort', () => failed(new DOMException('', 'AbortError')));
    setTimeout(() => real(path, options).then(done, failed), ms);
  });
}"""


def test_nothing_then_a_spinner_then_a_bar(lab, opened):
    with opened(lab, AT) as page:
        page.evaluate(SLOW, ["/maps", 2600])
        page.route("**/api/work", lambda route: route.fulfill(json={"done": 30, "of": 120, "seconds": 2.0}))
        page.click('.rows button[title="features.C1"]')
        began = time.monotonic()
        looks = {}
        while "bar" not in looks and time.monotonic() - began < 5:
            spins, bar = seen(page)
            waited = time.monotonic() - began
            if bar or spins:
                looks.setdefault("bar" if bar else "spinner", waited)
            page.wait_for_timeout(15)
        assert 0.05 < looks["spinner"] < 0.7, looks
        assert 0.9 < looks["bar"] < 2.0, looks
        assert not seen(page)[0], "one at a time"
        page.until(lambda: page.locator(".work-bar .figure").inner_text() == "30 of 120, about 6 s left")
        assert page.eval_on_selector(".work-bar progress", "e => e.value / e.max") == 0.25
        page.until(lambda: page.inner_text(".readout").startswith("6 maps"))
        assert seen(page) == [False, False]


KNOWN = """async ms => {
  const known = await (await fetch('/api/pictures/given/layers/3/units/0,5,3,3')).text();
  window.shown = 0;
  new MutationObserver(() => { if (document.body.classList.contains('busy')) window.shown++; })
    .observe(document.body, { attributes: true });
  window.fetch = () => new Promise(done => setTimeout(() => done(new Response(known)), ms));
}"""


@pytest.mark.parametrize(("ms", "shown"), [(50, False), (300, True)])
def test_quick_answers_show_nothing(lab, opened, ms, shown):
    with opened(lab, AT) as page:
        page.wait_for_timeout(300)
        page.evaluate(KNOWN, ms)  # no server, so that nothing but the wait counts
        page.focus(".sheet")
        page.keyboard.press("ArrowLeft")
        page.until(lambda: "[0, 5, 3, 3]" in page.inner_text(".arithmetic"))
        assert (page.evaluate("window.shown") > 0) == shown


@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_it_can_be_ended_and_the_last_view_stays(lab, opened, by):
    with opened(lab, AT) as page:
        before = page.inner_text(".arithmetic"), page.url
        page.evaluate(SLOW, ["/maps", 60000])
        page.click('.rows button[title="features.C1"]')
        page.until(lambda: seen(page)[1])
        if by == "mouse":
            page.click(".work-bar button")
        else:
            page.focus(".work-bar button")
            page.keyboard.press("Enter")
        page.settled()
        assert seen(page) == [False, False]
        assert (page.inner_text(".arithmetic"), page.url) == before
        assert page.get_attribute(".rows [aria-current=true]", "title") == "features.C3"


def test_a_lab_that_ends_is_said_and_the_last_view_stays(lab, opened):
    with opened(lab, AT) as page:
        before, asked = (page.inner_text(".arithmetic"), page.url), []
        page.route("**/api/**", lambda route: (asked.append(route.request.url), route.abort()))
        page.click('.rows button[title="features.C1"]')
        page.until(lambda: "does not answer" in page.inner_text("#problem"))
        assert page.get_attribute(".rows [aria-current=true]", "title") == "features.C3"
        page.focus(".sheet")
        page.until(lambda: page.is_hidden(".spinner"))
        asked.clear()
        page.keyboard.press("ArrowRight")
        page.until(lambda: asked and (page.inner_text(".arithmetic"), page.url) == before)
        page.unroute("**/api/**")
        page.keyboard.press("ArrowRight")
        page.until(lambda: "[0, 5, 3, 5]" in page.inner_text(".arithmetic"))
        assert page.is_hidden("#problem")
        page.trouble.clear()  # what the browser says of questions without an answer


def test_counted_work_of_the_server_is_shown_and_stopped(lab, opened):
    """Of the lab itself: occlusion runs the network some hundred times."""
    with opened(lab, f"{AT}&field=why&method=occlusion") as page:
        model, running = lab.session.loaded.model, []

        def slowly(module, args):
            running.append(time.monotonic())
            time.sleep(0.25)

        hook = model.register_forward_pre_hook(slowly)
        try:
            page.select_option(".overlay select >> nth=1", "2")
            page.until(lambda: " of 225" in (page.locator(".work-bar .figure").text_content(timeout=5000) or ""))
            page.click(".work-bar button")
            page.until(lambda: lab.json("/api/work")["of"] == 0, seconds=5)
            count = len(running)
            page.wait_for_timeout(600)
            assert len(running) == count
        finally:
            hook.remove()
