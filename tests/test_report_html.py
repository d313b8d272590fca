"""The page of lib/reporting/report/rendering.py as text: whole, safe, the same again, and readable in both of its looks."""
from __future__ import annotations

import base64
import hashlib
import html
import re
from html.parser import HTMLParser

import pytest
from report_pages import Book, facts, svg

from lib.evaluation.statistics import RESAMPLES
from lib.reporting.report.inline_svg import inline_svg
from lib.reporting.report.page import Chart, Column
from lib.reporting.report.rendering import FOLDER, first_look, forest, render, slug, span, truth_columns


class Elements(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def written(folder, page, book=None) -> str:
    return render(page, book or Book(len(page.cases), (96, 72)), folder / "report.html").read_text(encoding="utf-8")


def test_same_facts_same_bytes_and_nothing_else_is_left(tmp_path):
    one = render(facts(6), Book(6), tmp_path / "one" / "report.html")
    two = render(facts(6), Book(6), tmp_path / "two" / "report.html")
    assert one.read_bytes() == two.read_bytes()
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["report.html"]


def test_a_page_that_fails_leaves_the_last_good_one(tmp_path):
    class Broken(Book):
        def pictures(self):
            yield from super().pictures()
            raise OSError("spool is gone")

    path = render(facts(3, charts=False), Book(3), tmp_path / "report.html")
    before = path.read_bytes()
    with pytest.raises(OSError, match="spool is gone"):
        render(facts(3, charts=False), Broken(3), path)
    assert path.read_bytes() == before and [one.name for one in tmp_path.iterdir()] == ["report.html"]


def test_the_policy_knows_style_and_script_and_allows_nothing_else(tmp_path):
    text = written(tmp_path, facts(2))
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', text)
    policy = policy.replace("&#39;", "'")
    for name, kind in (("report.css", "style-src"), ("report.js", "script-src")):
        digest = base64.b64encode(hashlib.sha256((FOLDER / name).read_bytes()).digest()).decode()
        assert f"{kind} 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for tag, attributes in Elements(text).found:
        assert "style" not in attributes and not any(key.startswith("on") for key in attributes), (tag, attributes)
        assert tag != "link" or attributes["href"].startswith("data:")
        assert not attributes.get("src", "data:").startswith("http")


def test_an_empty_page_says_what_it_has(tmp_path):
    empty = dict.fromkeys(("headline", "summary", "fold_columns", "folds", "flow", "charts", "cases", "provenance", "card",
                           "warnings", "picture_legend"), [])
    text = written(tmp_path, facts(2, **empty, direction={}, worst_by="", methods=""))
    assert re.findall(r'<li><a href="#(\w+)">', text) == ["reading"]
    assert re.findall(r'<section id="(\w+)"', text) == ["reading"]


@pytest.mark.parametrize("changes, words", [
    ({"worst_by": "no_such_column"}, "no_such_column"),
    ({"cases": [facts(2, charts=False).cases[0]] * 2}, "cases: a key is used twice"),
    ({"charts": [Chart("a", "one", "", svg()), Chart("b", "one", "", svg())]}, "charts: a key is used twice"),
    ({"charts": [Chart("a", "one", "", "no svg")]}, "chart chart-one: not an SVG")])
def test_facts_that_contradict_each_other(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        render(facts(2, **{"charts": False} | changes), Book(2), tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_a_picture_that_is_not_in_the_book(tmp_path):
    with pytest.raises(ValueError, match="not in the book"):
        render(facts(3, charts=False), Book(2), tmp_path / "report.html")


def section(text: str, name: str) -> str:
    """The words of a section, without its tags."""
    found = re.search(rf'<section id="{name}".*?</section>', text, re.DOTALL)[0]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", found)).split())


def test_counts_and_thresholds_are_no_estimates(tmp_path):
    """They have no dot, no interval, no mean and SD; the table of all numbers has their folds."""
    text = written(tmp_path, facts(6, charts=False))
    headline, counts = (re.search(rf'<table class="numbers {name}">(.*?)</table>', text, re.DOTALL)[1]
                        for name in ("headline", "counts"))
    assert "Cases without it" not in headline and headline.count('class="estimate"') == 10  # three metrics of three, and one
    assert "forest" not in counts and "SD" not in counts
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", line) for line in re.findall(r"<tr>.*?</tr>", counts, re.DOTALL)]
    assert cells[1:] == [["core", "1.25", "1.25", "1.25", "1.25"], ["lesion", "0", "0", "0", "0"], ["core", "3", "1", "1", "1"]]
    assert "Presence, threshold" in counts and "(mL)" in counts
    (line,) = re.findall(r'<tr><th scope="row" title="presence_threshold_ml">.*?</tr>', text)
    said = [html.unescape(cell) for cell in re.findall(r'<td class="right[^"]*">(.*?)</td>', line)]
    # estimate, interval, mean, folds, patients, and each fold
    assert said == ["1.25", "\u2013", "\u2013", "3", "\u2013", "1.25", "1.25", "1.25"]
    assert re.findall(r'<p class="big">([^<]*)', text) == ["0.861", "0.914", "6.40", "0.943"]  # cards


def test_an_estimate_of_one_patient_is_no_fact(tmp_path):
    row = {**facts(6, charts=False).headline[0], "patients": 1, "ci_low": None, "ci_high": None}
    text = written(tmp_path, facts(6, charts=False, headline=[row]))
    assert 'class="numbers counts"' not in text and '<p class="big">0.861' in text


def test_the_reading_aid_is_true_of_every_page(tmp_path):
    """Also of validation, of loaded models and of data that names no patients."""
    text = written(tmp_path, facts(6, charts=False))
    words = section(text, "reading")
    assert "has seen" not in words and "never seen" not in words
    assert "Where the data does not name patients, each case counts as a patient of its own" in words
    assert f"{RESAMPLES:,} random draws" in words and "does not mean certainty" in words and "too narrow" in words
    assert "another training and other test patients" in words
    assert "Equal data fingerprints mean equal data, prepared in the same way." in section(text, "provenance")
    entries = re.findall(r'<div id="(term-[^"]+)"', text)
    assert len(entries) == len(set(entries)) and {"term-Absolute-error", "term-Dice", "term-Cases-without-it"} <= set(entries)


def test_the_score_that_chose_the_epoch_heads_its_column(tmp_path):
    changed = [{**fold, "validation_metric": "hd95_mm/lesion", "validation_score": 12.345}
               for fold in facts(2, charts=False).folds]
    text = written(tmp_path, facts(2, charts=False, folds=changed))
    assert ">Validation HD95 of lesion (mm)</th>" in text and '<td class="right strong">12.3</td>' in text
    mixed = [{**changed[0], "validation_metric": "validation_loss"}, changed[1]]
    assert "validation loss" in section(written(tmp_path, facts(2, charts=False, folds=mixed)), "training")


def column(metric: str, name: str = "x", label: str = "") -> Column:
    return Column(f"{metric}/{name}" if metric else name, label or metric, name if metric else "", metric)


def test_what_is_read_first_of_a_case():
    """The study's own measurement before sizes, mm before px; what was found only where nothing says whether it is right."""
    measured = [column(metric) for metric in ("dice", "volume_ml", "volume_ml_true", "present", "present_true", "bpd_px",
                                              "bpd_mm", "bpd_px_true", "bpd_mm_true", "probability")]
    assert first_look(measured) == ["bpd_mm/x", "volume_ml/x"]
    assert truth_columns(measured) == {"volume_ml/x": 2, "present/x": 4, "bpd_px/x": 7, "bpd_mm/x": 8}
    new = [column("", "predicted"), *(one for one in measured if not one.metric.endswith("_true"))]
    assert first_look(new) == ["predicted", "present/x", "bpd_mm/x", "volume_ml/x"] and truth_columns(new) == {}
    assert truth_columns([column("", "truth"), column("", "predicted")]) == {"predicted": 0}


def test_forest_of_a_row():
    rows = [{"metric": "dice", "estimate": .8, "ci_low": .75, "ci_high": .85, "fold0": .9, "fold1": None}]
    assert span(rows, ["fold0", "fold1"]) == (.7, 1)
    assert forest(rows[0], (.7, 1), ["fold0", "fold1"]) == {
        "estimate": pytest.approx(33.33), "low": pytest.approx(16.67), "high": 50, "folds": [pytest.approx(66.67)]}
    assert span([{"metric": "hd95_mm", "estimate": 6.4, "ci_low": 4.8, "ci_high": 7.6}], []) == (0, 8)
    kappa = {"metric": "kappa", "estimate": -.1, "ci_low": -.3, "ci_high": .1}
    assert span([kappa], []) == (pytest.approx(-.3), pytest.approx(.1))
    low = {"metric": "volume_ml_error", "estimate": -12, "ci_low": -35, "ci_high": .75}
    assert span([low], []) == (-40, 10)  # both ends by the larger
    assert span([{**low, "ci_low": -.01, "ci_high": 12.5, "estimate": 8}], []) == (-5, 15)
    assert span([{**low, "ci_low": 0, "ci_high": 0, "estimate": 0}], []) == (0, 1)
    assert span([{"metric": "volume_ml", "estimate": None, "ci_low": None, "ci_high": None}], []) == (0, 1)


def test_a_chart_brings_shapes_and_text_and_nothing_that_acts():
    bad = ('<svg xmlns="http://www.w3.org/2000/svg" xmlns:x="http://www.w3.org/1999/xlink" viewBox="0 0 10 20" onload="f()">'
           '<script>f()</script><style>*{fill:red}</style><foreignObject><b>b</b></foreignObject>'
           '<defs><path id="p" d="M 0.123456 1"/></defs>'
           '<use x:href="#p" style="fill: #000000; font-family: x; behavior: url(y)"/>'
           '<use x:href="https://a.example/#p"/>'
           '<rect style="fill: #ffffff" id="unused" clip-path="url(#p)"/><rect fill="url(https://a.example)"/>'
           '<text>a &lt; b</text></svg>')
    made = inline_svg(bad, "one", 'a "title"')
    assert made == inline_svg(bad, "one", 'a "title"')
    found = Elements(made).found
    assert [tag for tag, _ in found] == ["svg", "defs", "path", "use", "use", "rect", "rect", "text"]
    assert found[0][1] == {"viewbox": "0 0 10 20", "role": "img", "aria-label": 'a "title"', "width": "10", "height": "20"}
    assert found[2][1] == {"id": "one-0", "d": "M 0.12 1"} and found[3][1] == {"href": "#one-0", "fill": "currentColor"}
    assert found[4][1] == {} and found[5][1] == {"fill": "none", "clip-path": "url(#one-0)"} and found[6][1] == {}
    assert "a &lt; b" in made and "f()" not in made and "red" not in made


def test_charts_share_no_ids_and_all_references_lead_somewhere(tmp_path):
    text = written(tmp_path, facts(2))
    elements = Elements(text).found
    ids = [attributes["id"] for _, attributes in elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    targets = [attributes["href"][1:] for _, attributes in elements if attributes.get("href", "").startswith("#")]
    targets += re.findall(r"url\(#([^)]+)\)", text.partition("<body>")[2])
    assert len(targets) > 100 and set(targets) <= set(ids)


def themes() -> dict[str, dict[str, str]]:
    css = (FOLDER / "report.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root[^{]*\{([^}]*)\}", css)
    read = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in blocks]
    read = [block for block in read if block]
    assert len(read) == 3 and read[1] == read[2], "dark by the button and dark by the system are one look"
    return {"light": read[0], "dark": read[1]}


def luminance(colour: str) -> float:
    """Relative luminance of "#rrggbb" (WCAG 2.2)."""
    parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= .04045 else ((c + .055) / 1.055) ** 2.4 for c in parts)
    return .2126 * red + .7152 * green + .0722 * blue


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrasts(theme):
    """WCAG 2.2 AA: text 4.5 to 1, the edges of what one operates and the colours of charts 3 to 1."""
    colours = themes()[theme]
    for least, fronts, backs in ((4.5, ("ink", "soft", "accent"), ("paper", "card", "tint")),
                                 (4.5, ("warn", "ink"), ("warn-tint",)), (4.5, ("bad",), ("bad-tint",)),
                                 (3, ("strong-line",), ("card", "paper")),
                                 (3, ("blue", "wine", "indigo", "purple", "green"), ("card",))):
        for front in fronts:
            for back in backs:
                low, high = sorted((luminance(colours[front]), luminance(colours[back])))
                assert (high + .05) / (low + .05) >= least, (theme, front, back)


def test_names_in_any_letters_have_ids_of_their_own():
    assert len({slug(name) for name in ("\u5934\u56f4_px", "\u8179\u56f4_px", "gr\u00f6\u00dfe_mm", "gr\u00fc\u00dfe_mm")}) == 4
    assert slug("map@[.5:.95] <b>") == "map-.5-.95-b-"
