"""A matplotlib SVG as a part of an HTML page: only shapes and text, no styles that leak, ids that clash with no other's."""

from __future__ import annotations

import re
from xml.etree import ElementTree

SHAPES = {"svg", "g", "path", "defs", "clipPath", "use", "rect", "text", "tspan", "image", "line", "polyline", "polygon",
          "circle", "ellipse", "linearGradient", "radialGradient", "stop", "pattern", "mask", "marker"}
# Of a style attribute: what may stand as an attribute of its own, so that the page needs no inline styles. Families are the
# page's choice.
PROPERTIES = {"fill", "fill-opacity", "fill-rule", "stroke", "stroke-width", "stroke-opacity", "stroke-linecap",
              "stroke-linejoin", "stroke-dasharray", "stroke-dashoffset", "stroke-miterlimit", "opacity", "clip-path",
              "clip-rule", "text-anchor", "font-size", "font-style", "font-weight", "image-rendering", "stop-color",
              "stop-opacity", "dominant-baseline"}
PAPER = ({"fill": "#ffffff"}, {"fill": "#fff"}, {"fill": "white"})  # the figure's and the axes' ground: the page's own shows
# Colours that the page's style gives a second shade on a dark ground, by the class of the element: fill-blue, stroke-blue.
# (Classes, and not selectors by place: those do not reach what <use> repeats.) The palette's are those of style.COLOURS.
SHADES = {"#0072b2": "blue", "#882255": "wine", "#332288": "indigo", "#aa4499": "purple", "#117733": "green"}
REFERENCE = re.compile(r"url\(\s*['\"]?#([^)'\"]+)['\"]?\s*\)")
LONG = re.compile(r"(\.\d\d)\d+")  # a hundredth of a point is finer than any screen


def inline_svg(svg: str, prefix: str, label: str) -> str:
    """SVG text for an HTML body. prefix: stands before its ids; label: what a screen reader says.

    Raises ValueError for what is no SVG. The same text gives the same text, whatever ids the drawing library made up.
    """
    try:
        root = ElementTree.fromstring(svg)
    except ElementTree.ParseError as error:
        raise ValueError(f"chart {prefix}: not an SVG: {error}") from None
    if local(root.tag) != "svg":
        raise ValueError(f"chart {prefix}: not an SVG, but <{local(root.tag)}>")
    clean(root)
    used = [name for element in root.iter() for name in references(element)]
    names = {name: f"{prefix}-{number}" for number, name in enumerate(dict.fromkeys(used))}
    for element in root.iter():
        rename(element, names)
    if root.find(".//image") is None:  # numbers on an image's colours must stay as they are
        for element in root.iter():
            shade(element)
    for key in [key for key in root.attrib if key not in {"viewBox", "width", "height"}]:
        del root.attrib[key]
    root.attrib |= {"role": "img", "aria-label": label}
    box = root.get("viewBox", "").split()
    for key, size in zip(("width", "height"), box[2:] or ("600", "400")):
        root.set(key, pixels(root.get(key, size)))
    return ElementTree.tostring(root, encoding="unicode")


def local(name) -> str:
    """A tag or attribute without its namespace; "" for comments and the like."""
    return name.rpartition("}")[2] if isinstance(name, str) else ""


def clean(element) -> None:
    """Keep known shapes and harmless attributes, styles as attributes, short numbers."""
    element.tag = local(element.tag)
    for child in list(element):
        if local(child.tag) in SHAPES:
            clean(child)
        else:
            element.remove(child)
    kept = {}
    for key, value in element.attrib.items():
        key = local(key)
        if key == "style":
            pairs = (part.partition(":") for part in value.split(";"))
            style = {name.strip(): text.strip() for name, _, text in pairs if name.strip() in PROPERTIES}
            kept |= {"fill": "none"} if style in PAPER and element.tag in {"path", "rect"} else style
        elif key == "href":
            if value.startswith("#") or re.match(r"data:image/(png|jpeg|webp);base64,", value):
                kept[key] = value
        elif not key.lower().startswith("on") and key not in {"class", "space", "base"}:
            kept[key] = LONG.sub(r"\1", " ".join(value.split())) if key in {"d", "x", "y"} else value
    element.attrib.clear()
    element.attrib |= {key: value for key, value in kept.items()
                       if "url(" not in value or REFERENCE.fullmatch(value.strip())}
    if element.tag not in {"text", "tspan"}:
        element.text = None
    if element.tag != "tspan":
        element.tail = None


def shade(element) -> None:
    """Black becomes the ink of the page, white its ground, and dark colours get a class."""
    classes = []
    for key in ("fill", "stroke"):
        colour = element.get(key, "").lower()
        if colour == "#000000":
            element.set(key, "currentColor")
        elif colour == "#ffffff" and key == "fill" and element.tag in {"path", "rect"}:
            classes.append("fill-ground")
        elif colour in SHADES:
            classes.append(f"{key}-{SHADES[colour]}")
    if classes:
        element.set("class", " ".join(classes))


def references(element) -> list[str]:
    """Ids that an element speaks of."""
    found = [name for value in element.attrib.values() for name in REFERENCE.findall(value)]
    return found + [element.get("href")[1:]] if element.get("href", "").startswith("#") else found


def rename(element, names: dict[str, str]) -> None:
    """Ids and what speaks of them by their new names; an id that nobody speaks of goes."""
    for key, value in list(element.attrib.items()):
        if key == "id":
            if value in names:
                element.set(key, names[value])
            else:
                del element.attrib[key]
        elif key == "href" and value.startswith("#"):
            element.set(key, f"#{names[value[1:]]}")
        elif REFERENCE.search(value):
            element.set(key, REFERENCE.sub(lambda found: f"url(#{names[found[1]]})", value))


def pixels(length: str) -> str:
    """CSS pixels of an SVG length in points or pixels: "216pt" -> "288"."""
    size = float(re.match(r"[\d.]+", length)[0])
    return f"{size * 4 / 3 if length.endswith('pt') else size:.0f}"
