"""The page of lib/reporting/report/rendering.py in a real browser: sort, filters, pictures, keyboard, colours, paper."""
from __future__ import annotations

import base64
import dataclasses
import json
import re

import pytest
import browser as of_tests
from browser import Tab
from report_pages import FAILURES, Book, facts, svg

from lib.reporting.glossary import number
from lib.reporting.report.page import Chart, Column
from lib.reporting.report.rendering import render

CASES = 260
HOSTILE = "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return render(facts(CASES), Book(CASES, (96, 72)), tmp_path_factory.mktemp("report") / "report.html")


@pytest.mark.parametrize("lacking", ["CHROMIUM", "DRIVER"])
def test_a_missing_browser_is_skipped_only_where_none_is_needed(lacking, tmp_path, monkeypatch):
    monkeypatch.setattr(of_tests, lacking, None)
    for said, ending in (("", pytest.skip.Exception), ("1", pytest.fail.Exception)):
        monkeypatch.setenv(of_tests.NEEDED, said)
        with pytest.raises(ending, match="needs Chromium and its driver"), of_tests.started(tmp_path):
            pass


@pytest.fixture
def tab(browser, report):
    made = Tab(browser, report)
    yield made
    errors = [entry["message"] for entry in browser.get_log("browser")]
    assert not errors, errors


PAGE = facts(CASES, charts=False)


def ordered(key: str, reverse: bool) -> list[str]:
    """Cases by a column; those without a value last, equal ones as they are."""
    known = [case for case in PAGE.cases if case.values.get(key) is not None]
    return [case.case for case in sorted(known, key=lambda case: case.values[key], reverse=reverse)] \
        + [case.case for case in PAGE.cases if case.values.get(key) is None]


def test_opens_from_disk_and_asks_nothing_of_any_network(tab):
    tab.js("window.scrollTo(0, document.documentElement.scrollHeight)")
    tab.settle()
    messages = [json.loads(entry["message"])["message"] for entry in tab.driver.get_log("performance")]
    asked = [one["params"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    page = tab.path.as_uri()  # (the browser's own first page may still be at work)
    urls = [one["request"]["url"] for one in asked if page in (one["documentURL"], one["request"]["url"])]
    assert page in urls and not [url for url in urls if not url.startswith("data:") and url != page]
    assert tab.js("return all('svg[role=img] text').length") > 50  # text of charts is text


def test_what_is_forbidden_is_refused(browser, report):
    """The policy works: neither a fetch nor a foreign image leaves the page. (Its console is not quiet then.)"""
    tab = Tab(browser, report)
    browser.set_script_timeout(20)
    outcome = browser.execute_async_script(
        "const done = arguments[0]; const image = new Image(); image.onerror = () => fetch('https://example.org/')"
        ".then(() => done('sent'), () => done('refused')); image.onload = () => done('loaded');"
        "image.src = 'https://example.org/a.png'")
    assert outcome == "refused"
    refusals = [entry["message"] for entry in tab.driver.get_log("browser")]
    assert sum("Content Security Policy" in message for message in refusals) >= 2


def test_sorting_by_a_metric_leaves_empty_values_last(tab):
    assert tab.texts("#case-table tbody th")[:3] == ordered("dice/all", False)[:3]  # the worst first, from the start
    assert tab.rows() == ordered("dice/all", False)
    assert tab.one(tab.head("Dice")).find_element("xpath", "..").get_attribute("aria-sort") == "ascending"
    tab.click(tab.head("Dice"))
    assert tab.rows() == ordered("dice/all", True)
    assert tab.one(tab.head("Dice")).find_element("xpath", "..").get_attribute("aria-sort") == "descending"
    tab.click(tab.head("HD95 (mm)"))  # smaller is better: the worst is the largest
    assert tab.rows() == ordered("hd95_mm/all", True)
    sorts = tab.js("return all('#case-table th[aria-sort]').map(one => one.getAttribute('aria-sort'))")
    assert sorted(sorts) == sorted(["descending"] + ["none"] * (len(sorts) - 1))


def test_sorting_by_words_and_by_keyboard(tab):
    tab.js("arguments[0].focus()", tab.one(tab.head("Case")))
    tab.press("\ue007")
    assert tab.rows() == [case.case for case in PAGE.cases]
    tab.press(" ")  # the button still has the focus, though the table's head was made anew
    assert tab.rows() == [case.case for case in reversed(PAGE.cases)]
    tab.click(tab.head("Scanner"))
    assert tab.rows() == [case.case for case in sorted(PAGE.cases, key=lambda case: case.values["kind"])]


@pytest.mark.parametrize("fields, kept", [
    ({"#fold": "1"}, lambda case: case.fold == 1),
    ({"#failure": "any"}, lambda case: bool(case.failures)),
    ({"#failure": "none"}, lambda case: not case.failures),
    ({"#failure": f"={FAILURES[1]}"}, lambda case: FAILURES[1] in case.failures),
    ({"#least": "0.25", "#most": "0.6"}, lambda case: .25 <= (case.values["dice/all"] or 0) <= .6),
    ({"#range-of": "hd95_mm/lesion", "#least": "20"}, lambda case: case.values["hd95_mm/lesion"] >= 20),
    ({"#text": "PATIENT_01  case_002"}, lambda case: "Patient_01" in case.patient and "case_002" in case.case),
    ({"#text": "1.5 t"}, lambda case: case.values["kind"] == "1.5 T" or "1.5" in case.case),
    ({"#text": "case_0012", "#fold": "0"}, lambda case: case.case == "case_0012"),
    ({"#text": "no such case"}, lambda case: False)])
def test_filters(tab, fields, kept):
    for selector, value in fields.items():
        tab.choose(selector, value)
    expected = [case for case in PAGE.cases if kept(case)]
    assert set(tab.rows()) == {case.case for case in expected}
    status = tab.texts("#status")[0]
    assert f"{len(expected)} of {CASES} cases" in status
    assert f"{len({case.patient for case in expected})} patient" in status
    assert tab.js("return gallery.rows.length") == len(expected)  # pictures follow
    if not expected:
        assert "Clear the filters" in tab.texts("#case-table td.none")[0]
    tab.click("#filters button[type=reset]")
    tab.wait(f"return table.rows.length === {CASES}")


def test_median_of_what_is_shown(tab):
    import numpy as np
    known = [case.values["dice/all"] for case in PAGE.cases if case.fold == 2 and case.values["dice/all"] is not None]
    tab.choose("#fold", "2")
    low, middle, high = np.percentile(known, [25, 50, 75])
    assert f"median Dice {middle:.3f} (quartiles {low:.3f} to {high:.3f})" in tab.texts("#status")[0]


def test_columns_of_a_class(tab):
    volumes = ["Volume (mL)", "Volume, lesion / truth (mL)", "Volume, core (mL)"]
    assert tab.texts("#case-table .on-paper") == ["Case", "Patient", "Fold", "Scanner", "Failures", "Dice", *volumes, "HD95 (mm)",
                                                  "Recall"]
    tab.choose("#class", "core")
    assert tab.texts("#case-table .on-paper")[5:] == ["Volume, core (mL)", "Dice, core", "HD95, core (mm)", "Recall, core"]
    assert tab.rows() == ordered("dice/core", False)  # the same metric goes on to sort
    tab.choose("#class", "")
    assert len(tab.texts("#case-table .on-paper")) == 5 + 12  # the truth's column stands in that of the prediction


def test_rows_are_made_as_one_scrolls(tab):
    assert len(tab.texts("#case-table tbody tr")) == 100
    for count in (200, CASES):
        tab.js("const box = first('#case-scroll'); box.scrollTop = box.scrollHeight")
        tab.wait(f"return all('#case-table tbody tr').length === {count}")


def test_pictures_are_worst_first_by_a_metric_that_one_chooses(tab):
    assert tab.texts("#gallery b")[:40] == ordered("dice/all", False)[:40]
    assert tab.texts("#order option")[:4] == ["Dice", "Dice, lesion", "Dice, core", "HD95 (mm)"]
    tab.choose("#order", "hd95_mm/lesion")
    assert tab.texts("#gallery b")[:40] == ordered("hd95_mm/lesion", True)[:40]
    assert "HD95, lesion" in tab.texts("#gallery li")[0]
    assert "volume_ml/all" not in tab.js("return all('#order option').map(one => one.value)")


def test_pictures_are_loaded_when_they_come_near(tab):
    loaded = "return all('#gallery li').map(one => one.querySelectorAll('img').length)"
    tab.wait("return all('#gallery img').length >= 36")
    before = tab.js(loaded)
    assert before[:12] == [3] * 12 and sum(map(bool, before)) < 40 and len(before) == 100
    tab.js("first('#gallery li:nth-child(90)').scrollIntoView({behavior: 'instant'})")
    tab.wait("return all('#gallery li:nth-child(90) img').length === 3")
    tab.wait("return all('#gallery li:nth-child(90) img').every(one => one.complete && one.naturalWidth === 96)")
    assert sum(map(bool, tab.js(loaded))) < 90


def test_more_pictures_when_one_asks_for_them(tab):
    assert tab.texts("#more") == ["Show 100 more of 260"]
    tab.click("#more")
    assert len(tab.texts("#gallery li")) == 200 and tab.texts("#more") == ["Show the last 60"]
    tab.click("#more")
    assert tab.texts("#gallery b") == ordered("dice/all", False)
    assert not tab.one("#more").is_displayed() and ordered("dice/all", False)[200] in tab.js(FOCUS)


VISIBLE = "return all(arguments[0]).map(one => getComputedStyle(one).visibility)"


def test_truth_and_prediction_are_switched_for_all_pictures(tab):
    assert set(tab.js(VISIBLE, "#gallery img.truth")) == {"visible"}
    tab.click("#truth")
    assert set(tab.js(VISIBLE, "#gallery img.truth")) == {"hidden"}
    assert set(tab.js(VISIBLE, "#gallery img.prediction")) == {"visible"}
    tab.click("#prediction")
    assert set(tab.js(VISIBLE, "#gallery img.prediction")) == {"hidden"}
    assert set(tab.js(VISIBLE, "#gallery img.base")) == {"visible"}
    tab.click("#gallery li button")
    assert tab.js(VISIBLE, "#stage img") == ["visible", "hidden", "hidden"]  # the lightbox follows
    tab.press("t")
    assert tab.js(VISIBLE, "#stage img") == ["visible", "hidden", "visible"] and tab.js("return first('#truth').checked")
    tab.press("P")
    assert tab.js(VISIBLE, "#stage img") == ["visible"] * 3 and tab.js("return first('#prediction').checked")


FOCUS = "return document.activeElement.textContent || document.activeElement.id"
LEFT, RIGHT, HOME, END, ESCAPE, ENTER, TAB = "\ue012", "\ue014", "\ue011", "\ue010", "\ue00c", "\ue007", "\ue004"


def test_lightbox_by_keyboard(tab):
    order = ordered("dice/all", False)
    tab.click("#gallery li:nth-child(2) button")
    title = "return first('#lightbox-title').textContent"
    assert tab.js("return first('#lightbox').open") and tab.js(title) == order[1]
    assert tab.texts("#lightbox-about") == [f"patient {PAGE.cases[int(order[1][-4:])].patient} · fold "
                                            f"{PAGE.cases[int(order[1][-4:])].fold} · 2 of {CASES}"]
    for key, expected in ((RIGHT, 2), (RIGHT, 3), (LEFT, 2), (HOME, 0), (LEFT, 0), (END, CASES - 1), (RIGHT, CASES - 1)):
        tab.press(key)
        assert tab.js(title) == order[expected]
        assert tab.js("return first('#lightbox').contains(document.activeElement)")
    assert tab.one("#previous").is_enabled() and not tab.one("#next").is_enabled()
    for _ in range(12):  # the focus stays inside
        tab.press(TAB)
        assert tab.js("return [document.body, ...all('#lightbox *')].includes(document.activeElement)")
    tab.press(ESCAPE)
    assert not tab.js("return first('#lightbox').open") and order[1] in tab.js(FOCUS)


def test_lightbox_of_a_row_goes_through_the_table(tab):
    tab.choose("#fold", "1")
    tab.click(tab.head("Patient"))
    names = tab.rows()
    tab.js("first('#case-table tbody tr:nth-child(3) button').focus({preventScroll: true})")
    tab.press(ENTER)
    assert tab.texts("#lightbox-title") == [names[2]]
    tab.click("#next")
    assert tab.texts("#lightbox-title") == [names[3]]
    shown = dict(zip(tab.texts("#lightbox-values dt"), tab.texts("#lightbox-values dd")))
    case = PAGE.cases[int(names[3][-4:])]
    assert shown["Scanner"] == case.values["kind"]
    assert shown["HD95, core"] == f"{number(case.values['hd95_mm/core'], 'hd95_mm')}\xa0mm"  # as the tables of the page have it
    assert len(shown) == sum(value is not None for value in case.values.values())
    tab.click("#close")
    assert tab.js(FOCUS) == names[2]
    tab.click("#case-table tbody tr:nth-child(2) td:nth-child(4)")  # anywhere in the row
    assert tab.texts("#lightbox-title") == [names[1]]
    tab.click("#close")


def test_the_keyboard_reaches_everything_in_order(tab):
    tab.press(TAB)
    assert tab.js(FOCUS) == "Skip to the results"
    tab.press(ENTER, TAB)
    assert tab.js("return document.activeElement.textContent") == "pooled estimates"  # past the navigation
    tab.load()
    seen = []
    for _ in range(12):
        tab.press(TAB)
        seen.append(tab.js(FOCUS))
    assert seen == ["Skip to the results", "Results", "Patients", "Folds", "Charts", "Cases", "Pictures", "Methods", "Model card",
                    "Provenance", "Reading aid", "Dark"]
    tab.click("#gallery li button")
    tab.press(ESCAPE)
    assert tab.js("return getComputedStyle(document.activeElement).outlineStyle") == "solid"  # one sees where one is


def test_names_landmarks_and_headings(tab):
    for landmark in ("header", "nav[aria-label]", "main", "footer", "form[role=search][aria-label]"):
        assert tab.js("return all(arguments[0]).length", landmark) >= 1, landmark
    assert tab.js("return all('h1').length") == 1 and tab.js("return document.documentElement.lang") == "en"
    levels = tab.js("return all('main h1, main h2, main h3').map(one => Number(one.tagName[1]))")
    assert all(after <= before + 1 for before, after in zip([1, *levels], levels))
    unnamed = tab.js("""
    return all('button, select, input, a, section, [role=region], dialog, table').filter(one => {
        const by = (one.getAttribute('aria-labelledby') ?? '').split(' ').map(id => document.getElementById(id)).filter(Boolean);
        return !(one.getAttribute('aria-label') || one.labels?.length || by.length || one.caption || one.textContent.trim());
    }).map(one => one.outerHTML.slice(0, 80))""")
    assert unnamed == []
    assert tab.js("return all('img:not([alt])').length") == 0
    assert tab.js("return all('nav a').every(one => first(one.hash))")


GROUND = "return getComputedStyle(document.body).backgroundColor"
LIGHT_GROUND, DARK_GROUND = "rgb(251, 250, 247)", "rgb(19, 21, 24)"


def prefer(tab, scheme: str):
    tab.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])


def test_light_and_dark(tab):
    try:
        prefer(tab, "dark")
        assert tab.js(GROUND) == DARK_GROUND and tab.texts("#theme") == ["Light"]  # what a click gives
        line = "return getComputedStyle(first('#figure-scores svg text')).fill"
        assert tab.js(line) == "rgb(229, 231, 234)"  # words of charts are the page's ink
        prefer(tab, "light")
        assert tab.js(GROUND) == LIGHT_GROUND and tab.texts("#theme") == ["Dark"]
        tab.click("#theme")
        assert tab.js(GROUND) == DARK_GROUND and tab.texts("#theme") == ["Light"]
        tab.load()
        assert tab.js(GROUND) == DARK_GROUND, "the choice is kept"
        prefer(tab, "dark")
        tab.click("#theme")
        assert tab.js(GROUND) == LIGHT_GROUND, "the button wins over the system"
    finally:
        tab.js("localStorage.clear()")
        prefer(tab, "")


def test_the_section_that_is_read_is_marked(tab):
    assert tab.texts(".bar a[aria-current]") == ["Results"]
    tab.js("first('#methods').scrollIntoView({behavior: 'instant'})")
    tab.wait("return first('.bar a[aria-current]').textContent === 'Methods'")
    assert tab.js("return first('.bar').getBoundingClientRect().top") == 0  # and stays in sight
    assert tab.js("return first('#methods-title').getBoundingClientRect().top > first('.bar').clientHeight")


def test_on_paper(tab):
    made = tab.cdp("Page.printToPDF", preferCSSPageSize=True, paperWidth=8.27, paperHeight=11.69)
    pdf = base64.b64decode(made["data"])
    assert pdf.startswith(b"%PDF") and 8 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 20
    assert len(tab.texts("#case-table tbody tr")) == 200 and "first 200 of 260" in tab.texts("#table-print-note")[0]
    assert "first 12 of 260" in tab.texts("#gallery-print-note")[0]
    tab.cdp("Emulation.setEmulatedMedia", media="print")
    try:
        for selector in (".bar", ".tools", "#copy", "#case-table thead button", ".skip"):
            assert tab.js("return getComputedStyle(first(arguments[0])).display", selector) == "none", selector
        assert tab.js("return getComputedStyle(first('#case-scroll')).overflowY") == "visible"
        width = "return all('#case-table thead th').filter(one => getComputedStyle(one).display !== 'none').length"
        assert tab.js(width) == tab.js("return WIDEST") == 10  # of eleven
        assert "first 10 of 11 columns" in tab.texts("#table-print-note")[0]
        assert tab.js("return getComputedStyle(first('.flow .box')).display") == "flex"
        shown = tab.js("return all('#gallery li').filter(one => getComputedStyle(one).display !== 'none').length")
        assert shown == 12
    finally:
        tab.cdp("Emulation.setEmulatedMedia", media="")
    assert not tab.js("return first('details').open")  # it was, on paper


@pytest.mark.parametrize("width", [400, 800])
def test_narrow_screens_scroll_in_one_direction(tab, width):
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    tab.cdp("Emulation.setDeviceMetricsOverride", **screen)
    try:
        assert tab.js("return innerWidth") == width
        assert tab.js("return document.documentElement.scrollWidth === document.documentElement.clientWidth")
        tab.click("#gallery li button")
        assert tab.js("const box = first('#lightbox'); return box.scrollWidth <= box.clientWidth && box.clientWidth < innerWidth")
        tab.press(ESCAPE)
    finally:
        tab.cdp("Emulation.clearDeviceMetricsOverride")


def test_methods_are_copied(tab):
    tab.click("#copy")
    tab.wait("return first('#copied').textContent")
    assert tab.texts("#copied") == ["Copied."]


def test_text_from_data_stays_text(browser, tmp_path):
    page = facts(2)
    case = dataclasses.replace(page.cases[0], case=HOSTILE, patient=HOSTILE, failures=[HOSTILE],
                               values={**page.cases[0].values, "kind": HOSTILE})
    column = dataclasses.replace(page.columns[0], label=HOSTILE)
    page = dataclasses.replace(
        page, title=HOSTILE, study_title=HOSTILE, run=HOSTILE, subset_label=HOSTILE, warnings=[HOSTILE], methods=HOSTILE,
        generator=HOSTILE, card=[(HOSTILE, HOSTILE)], provenance=[(HOSTILE, HOSTILE)],
        picture_legend=[(HOSTILE, '"><script>')], cases=[case, page.cases[1]], columns=[column, *page.columns[1:]],
        charts=[Chart(HOSTILE, HOSTILE, HOSTILE, svg(), HOSTILE)],
        headline=[{**row, "class": HOSTILE} for row in page.headline], folds=[{**fold, "status": HOSTILE} for fold in page.folds],
        flow=[dataclasses.replace(page.flow[0], label=HOSTILE, detail=[HOSTILE])])
    tab = Tab(browser, render(page, Book(2, note=HOSTILE), tmp_path / "report.html"))
    tab.click("#case-table tbody button")
    assert tab.js("return all('script').length") == 1 + 2 + 1  # facts, two pictures, ours
    assert tab.js("return document.title").startswith(HOSTILE) and tab.texts("#lightbox-title") == [HOSTILE]
    assert tab.js("return all('img[src=x]').length") == 0
    assert not tab.driver.get_log("browser")


def test_new_data_without_truth(browser, tmp_path):
    """Pictures, and a table of what was said; no scores, no truth to switch."""
    page = facts(5, charts=False)
    said = {"kind": "3 T", "volume_ml/all": 12.5}
    cases = [dataclasses.replace(case, values=said, fold="", failures=[]) for case in page.cases]
    columns = [column for column in page.columns if column.key in ("kind", "volume_ml/all")]
    page = dataclasses.replace(page, headline=[], summary=[], folds=[], fold_columns=[], cases=cases, columns=columns,
                               worst_by="", warnings=[])
    tab = Tab(browser, render(page, Book(5, truths=False), tmp_path / "report.html"))
    assert tab.texts("#case-table .on-paper") == ["Case", "Patient", "Scanner", "Volume (mL)"]
    tools = {name: tab.one(f"#{name}-tool").is_displayed() for name in ("truth", "prediction", "order", "fold", "failure")}
    assert tools == {"truth": False, "prediction": True, "order": False, "fold": False, "failure": False}
    assert tab.texts("#gallery b") == tab.texts("#case-table tbody th") == [case.case for case in page.cases]
    tab.click("#gallery li button")
    assert tab.js("return all('#stage img').length") == 2
    assert not tab.driver.get_log("browser")


def test_five_thousand_cases_stay_few_elements(browser, tmp_path):
    """What is made at a time does not grow with the cases."""
    page = facts(5000, charts=False)
    cases = [dataclasses.replace(case, picture=None if case.picture > 3 else case.picture) for case in page.cases]
    tab = Tab(browser, render(dataclasses.replace(page, cases=cases), Book(4), tmp_path / "report.html"))
    assert tab.js("return all('#case-table tbody tr').length") == 100
    tab.click(tab.head("HD95 (mm)"))
    assert tab.js("return all('#case-table tbody tr').length") == 100
    assert tab.js("return table.rows.length") == 5000 and "5,000 cases, 2,500 patients" in tab.texts("#status")[0]
    tab.choose("#text", "case_4321")
    assert tab.texts("#case-table tbody th") == ["case_4321"]
    tab.click("#case-table tbody button")
    assert tab.texts("#stage") == ["no picture"]


def test_the_page_and_its_script_write_numbers_alike(tab):
    numbers = [0, .5, -.25, 9.999, 10.04, 123.456, -999.9, 1234.6, 9999.4, 10000, -1234567.8]
    for metric, unit in (("dice", ""), ("volume_ml", "mL")):
        said = tab.js("return arguments[0].map(value => shown(value, {unit: arguments[1]}))", numbers, unit)
        assert said == [number(value, metric) for value in numbers]
    assert tab.js("return [3, 1.5, null, '', 12345].map(value => shown(value, {count: true}))") == [
        *(number(value, "cases") for value in (3, 1.5, None, None, 12345))]


def test_what_was_said_stands_beside_what_is_true(tab):
    case = PAGE.cases[int(tab.texts("#case-table tbody th")[0][-4:])]
    said, truth = (number(case.values[f"{metric}/lesion"], "volume_ml") for metric in ("volume_ml", "volume_ml_true"))
    assert tab.texts("#case-table tbody tr:first-child td")[6] == f"{said} / {truth}"
    lines = tab.js("return all('#gallery li:first-child .line').map(one => [...one.children].map(part => part.textContent))")
    assert lines[0] == ["Dice", number(case.values["dice/all"])]
    assert [label for label, _ in lines[1:]] == ["Volume", "Volume, lesion", "Volume, core"]
    assert lines[2][1] == f"{said} / {truth}\xa0mL"
    tab.choose("#class", "lesion")
    assert len(tab.texts("#gallery li:first-child .line")) == 2
    assert tab.texts("#case-table .on-paper")[5] == "Volume, lesion / truth (mL)"
    assert "what was predicted / what is true" in " ".join(tab.texts("#pictures .lead")[0].split())


def test_the_class_is_what_one_reads_first(browser, tmp_path):
    """Of a classification: the words for what was said and what is true, in table and tile; the name of a patient once."""
    page = facts(3, charts=False)
    columns = [Column("truth", "Truth"), Column("predicted", "Predicted"),
               next(column for column in page.columns if column.key == "dice/all")]
    cases = [dataclasses.replace(case, patient=case.case, values={"truth": "femur", "predicted": "brain", "dice/all": .5})
             for case in page.cases]
    page = dataclasses.replace(page, columns=columns, cases=cases)
    tab = Tab(browser, render(page, Book(3, (96, 72)), tmp_path / "report.html"))
    assert tab.texts("#case-table .on-paper") == ["Case", "Fold", "Truth", "Predicted", "Failures", "Dice"]
    assert tab.texts("#gallery li:first-child .line") == ["Dice 0.500", "Predicted brain / femur"]
    assert not tab.driver.get_log("browser")


def test_failures_of_a_kind_stand_together(browser, tmp_path):
    page = facts(2, charts=False)
    said = ["missed: stroke", "worst tenth", "missed: brain", "wrong place: a: b"]
    page = dataclasses.replace(page, cases=[dataclasses.replace(page.cases[0], failures=said), page.cases[1]])
    tab = Tab(browser, render(page, Book(2, (96, 72)), tmp_path / "report.html"))
    assert tab.texts("#gallery .failure") == ["missed: stroke, brain", "worst tenth", "wrong place: a: b"]
    assert tab.texts("#case-table .failure") == tab.texts("#gallery .failure")
    tab.choose("#failure", "=missed: brain")  # each can still be filtered by
    assert tab.rows() == [page.cases[0].case]


@pytest.mark.parametrize("width", [420, 1360])
def test_all_failures_of_a_tile_are_in_sight(browser, tmp_path, width):
    page = facts(8, charts=False)
    many = [f"kind {letter}: circumference of structure {letter * 12}_{letter * 20}" for letter in "abcdef"]
    cases = [dataclasses.replace(case, failures=many if place == 1 else []) for place, case in enumerate(page.cases)]
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    tab = Tab(browser, render(dataclasses.replace(page, cases=cases), Book(8, (96, 72)), tmp_path / "report.html"))
    tab.cdp("Emulation.setDeviceMetricsOverride", **screen)
    try:
        spilt = tab.js("""return all('#gallery .failure, #gallery .line').filter(part => {
            const [inner, outer] = [part, part.closest('button')].map(one => one.getBoundingClientRect());
            return inner.bottom > outer.bottom || inner.right > outer.right || !inner.height;
        }).map(part => part.textContent)""")
        assert spilt == [] and tab.texts("#gallery .failure") == many
    finally:
        tab.cdp("Emulation.clearDeviceMetricsOverride")
