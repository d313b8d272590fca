// What moves in report.html: the case table, the pictures, the lightbox, the colours. Nothing is fetched or sent.
"use strict";

const SLICE = 100;      // rows, as one scrolls, or pictures, as one asks, that are made at a time
const AT_ONCE = 12;     // pictures that are loaded from the start, which are also those on paper
const MOST_LOOKS = 4;   // measurements that stand before the scores, and under a picture
const WIDEST = 10;      // columns of the case table on paper
const ON_PAPER = 200;   // rows of the case table on paper
const NEAR = "600px";   // how far below the screen things are made ready

const $ = id => document.getElementById(id);
const root = document.documentElement;
const facts = JSON.parse($("facts").textContent);
const columns = facts.columns;
const cases = facts.cases.map(([name, patient, fold, failures, picture, key, values], place) =>
  ({name, patient, fold, failures, picture, key, values, place,
    text: [name, patient, ...failures, ...values.filter(value => typeof value === "string")].join("\n").toLowerCase()}));
const measured = columns.map((column, index) => ({...column, index})).filter(column => column.metric);
const ranked = measured.filter(column => column.larger !== null);
const truths = new Set(columns.map(column => column.truth)); // places of columns that stand beside what was said
const looks = facts.first.map(key => columns.findIndex(column => column.key === key)); // read of a case before its scores

/** An element with properties and children; text goes in as text, never as HTML. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value; else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function plural(count, one) {
  return `${count.toLocaleString("en")} ${one}${count === 1 ? "" : "s"}`;
}

const isEmpty = value => value === null || value === undefined || value === "";

function onPaper(most, count, one) {
  return count > most ? `The first ${most} of ${plural(count, one)}; all are in the file.` : "";
}

/** A value as the table shows it: as `number` in lib/reporting/glossary.py. */
function shown(value, column) {
  if (isEmpty(value)) return "–";
  if (typeof value === "string") return value;
  const size = Math.abs(value);
  if (column.count) return value.toLocaleString("en", {maximumFractionDigits: 1}).replace("-", "−");
  const text = value.toFixed(size < 10 ? (column.unit ? 2 : 3) : size < 1000 ? 1 : 0).replace("-", "−");
  return size < 10000 ? text : text.replace(/\B(?=(\d{3})+$)/g, ",");
}

const unitFor = column => column.unit ? ` (${column.unit})` : "";
const plain = value => isEmpty(value) ? "–" : String(value);

function shownWithUnit(value, column) {
  return shown(value, column) + (column.unit && typeof value === "number" ? `\u00a0${column.unit}` : "");
}

// --- order ------------------------------------------------------------------------------------------------------------

const collator = new Intl.Collator("en", {numeric: true, sensitivity: "base"});

/** A copy in order; empty values stand last in either direction, equals as they were given. */
function sorted(list, valueOf, direction) {
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : collator.compare(String(a), String(b));
  return list.map(one => [valueOf(one), one]).sort(([a, one], [b, other]) => {
    if (isEmpty(a) || isEmpty(b)) return isEmpty(a) - isEmpty(b) || one.place - other.place;
    return direction * compare(a, b) || one.place - other.place;
  }).map(([, one]) => one);
}

const columnOf = key => measured.find(column => column.key === key);
const worstFirst = column => column.larger ? 1 : -1;

// --- the case table: which cases, in which order ----------------------------------------------------------------------

// Columns that every table has, then those of the facts.
const fixed = [
  {key: "case", label: "Case", of: one => one.name},
  {key: "patient", label: "Patient", of: one => one.patient},
  {key: "fold", label: "Fold", of: one => one.fold},
  {key: "failures", label: "Failures", of: one => one.failures.join(", ")},
].filter(column => cases.some(one => !isEmpty(column.of(one)) && (column.key === "case" || column.of(one) !== one.name)));
const given = columns.map((column, index) => ({...column, index, of: one => one.values[index]}));

const table = {rows: [], made: 0, order: {key: "", direction: 1}};

/** Who it is, what it is called, what went wrong, the score that orders; then what was measured, and all other scores. */
function tableColumns() {
  const chosen = $("class").value;
  const failures = fixed.filter(column => column.key === "failures");
  const texts = given.filter(column => !column.metric);
  const early = new Set(looks.slice(0, MOST_LOOKS));
  const numbers = given.filter(column => column.metric && !truths.has(column.index)
    && (!chosen || column.class === chosen || chosen === "all" && early.has(column.index)));
  const turn = column => column.key === facts.worst_by ? -1
    : looks.includes(column.index) ? looks.indexOf(column.index) : looks.length;
  numbers.sort((a, b) => turn(a) - turn(b) || a.index - b.index);
  return [...fixed.filter(column => column.key !== "failures"), ...texts, ...failures, ...numbers];
}

/** The head of a column: `Volume, stroke / truth (mL)` where what is true stands beside what was said. */
const headOf = column => column.label + (hasTruth(column) ? " / truth" : "") + unitFor(column);
const hasTruth = column => Boolean(column.metric) && column.truth !== null;

function passes(one) {
  const failure = $("failure").value;
  if ($("fold").value !== "" && String(one.fold) !== $("fold").value) return false;
  if (failure === "any" && !one.failures.length || failure === "none" && one.failures.length) return false;
  if (failure.startsWith("=") && !one.failures.includes(failure.slice(1))) return false;
  const words = $("text").value.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.every(word => one.text.includes(word))) return false;
  const [least, most] = [$("least").value, $("most").value];
  if (least === "" && most === "") return true;
  const value = one.values[columnOf($("range-of").value).index];
  return typeof value === "number" && (least === "" || value >= Number(least)) && (most === "" || value <= Number(most));
}

function drawTable() {
  const kept = cases.filter(passes);
  const column = sortingColumn();
  table.rows = sorted(kept, column.of, table.order.direction);
  table.made = 0;
  drawHead();
  $("case-table").tBodies[0].replaceChildren();
  $("case-scroll").scrollTop = 0;
  moreRows();
  tell(kept);
}

/** The column of the order; when its class has been filtered away the same metric of another, and else the case. */
function sortingColumn() {
  const there = tableColumns(), before = given.find(column => column.key === table.order.key);
  const found = there.find(column => column.key === table.order.key)
    ?? there.find(column => column.metric && column.metric === before?.metric);
  if (!found) table.order.direction = 1;
  table.order.key = (found ?? there[0]).key;
  return found ?? there[0];
}

function drawHead() {
  const cells = tableColumns().map(column => {
    const mine = column.key === table.order.key;
    const title = `${column.meaning ? `${column.meaning}\n` : ""}Sort by ${column.label}`;
    const button = make("button", {type: "button", title}, headOf(column),
      make("span", {ariaHidden: "true"}, mine ? (table.order.direction > 0 ? "▲" : "▼") : ""));
    button.dataset.key = column.key;
    const words = make("span", {className: "on-paper"}, headOf(column)); // on paper no head with buttons repeats
    const cell = make("th", {scope: "col", className: column.metric ? "right" : ""}, button, words);
    cell.setAttribute("aria-sort", mine ? (table.order.direction > 0 ? "ascending" : "descending") : "none");
    return cell;
  });
  const focused = document.activeElement?.dataset?.key;
  $("case-table").tHead.replaceChildren(make("tr", {}, ...cells));
  const again = focused && [...$("case-table").tHead.querySelectorAll("button")].find(button => button.dataset.key === focused);
  again?.focus({preventScroll: true});
}

function moreRows(count = SLICE) {
  const body = $("case-table").tBodies[0], shownColumns = tableColumns();
  const slice = table.rows.slice(table.made, table.made + count);
  body.append(...slice.map(one => rowOf(one, shownColumns)));
  table.made += slice.length;
  if (!table.rows.length) {
    const words = "No case is like this. Clear the filters to see all.";
    body.append(make("tr", {}, make("td", {className: "none", colSpan: shownColumns.length}, words)));
  }
}

function rowOf(one, shownColumns) {
  const cells = shownColumns.map(column => {
    if (column.key === "case") return make("th", {scope: "row"}, make("button", {type: "button"}, one.name));
    if (column.key === "failures") return make("td", {className: "failures"}, ...failureMarks(one));
    const value = column.of(one);
    if (!column.metric) return make("td", {className: column.key}, plain(value));
    const truth = hasTruth(column) ? [make("span", {className: "quiet"}, ` / ${shown(one.values[column.truth], column)}`)] : [];
    return make("td", {className: "right"}, shown(value, column), ...truth);
  });
  const row = make("tr", {}, ...cells);
  row.dataset.place = one.place;
  return row;
}

/** A mark for each kind of failure: "missed: stroke" and "missed: brain" are "missed: stroke, brain". */
function failureMarks(one) {
  const kinds = new Map();
  for (const failure of one.failures) {
    const [kind, ...what] = failure.split(": ");
    kinds.set(kind, [...(kinds.get(kind) ?? []), ...(what.length ? [what.join(": ")] : [])]);
  }
  return [...kinds].map(([kind, what]) =>
    make("span", {className: "failure"}, what.length ? `${kind}: ${what.join(", ")}` : kind));
}

/** How many are shown, and the middle of what they scored. */
function tell(kept) {
  const patients = new Set(kept.map(one => one.patient)).size;
  const of = kept.length === cases.length ? plural(cases.length, "case")
    : `${kept.length.toLocaleString("en")} of ${plural(cases.length, "case")}`;
  const parts = [`${of}, ${plural(patients, "patient")}`];
  const column = columnOf($("range-of").value);
  const found = column ? kept.map(one => one.values[column.index]) : [];
  const values = found.filter(value => typeof value === "number").sort((a, b) => a - b);
  if (values.length) {
    const at = share => { // linear between neighbours, as numpy.percentile
      const place = share * (values.length - 1), low = Math.floor(place);
      return values[low] + (place - low) * (values[Math.min(low + 1, values.length - 1)] - values[low]);
    };
    parts.push(`median ${column.label} ${shownWithUnit(at(.5), column)} `
      + `(quartiles ${shown(at(.25), column)} to ${shown(at(.75), column)})`);
  }
  $("status").textContent = parts.join(" · ");
  const width = tableColumns().length;
  $("table-print-note").textContent = [onPaper(ON_PAPER, kept.length, "case"), onPaper(WIDEST, width, "column")].join(" ").trim();
}

function fillSelect(id, options, tool) {
  $(id).replaceChildren(...options.map(([value, label]) => make("option", {value}, label)));
  if (tool) $(tool).hidden = options.length < 2;
}

function startTable() {
  const classes = [...new Set(measured.map(column => column.class))].filter(Boolean);
  const folds = [...new Set(cases.map(one => one.fold))].filter(fold => !isEmpty(fold)).sort(collator.compare);
  const failures = [...new Set(cases.flatMap(one => one.failures))].sort(collator.compare);
  fillSelect("fold", [["", "all"], ...folds.map(fold => [fold, fold])], "fold-tool");
  fillSelect("class", [["", "all classes"], ...classes.map(name => [name, name === "all" ? "overall" : name])], "class-tool");
  const some = [["", "any or none"], ["any", "any failure"], ["none", "no failure"]];
  fillSelect("failure", [...some, ...failures.map(name => [`=${name}`, name])], "failure-tool");
  fillSelect("range-of", measured.map(column => [column.key, column.label + unitFor(column)]));
  $("failure-tool").hidden = !failures.length;
  $("fold-tool").hidden = folds.length < 2;
  $("class-tool").hidden = classes.length < 2;
  $("range-tool").hidden = !measured.length;
  // Dozens of columns are read by nobody: begin with those over all classes.
  const begin = measured.length > 10 && classes.includes("all") ? "all" : "";
  const worst = columnOf(facts.worst_by);
  const reset = () => {
    $("class").value = begin;
    if (worst) $("range-of").value = worst.key;
    table.order = worst && tableColumns().some(column => column.key === worst.key)
      ? {key: worst.key, direction: worstFirst(worst)} : {key: "case", direction: 1};
    refresh();
  };
  $("filters").addEventListener("reset", () => setTimeout(reset)); // once the fields are empty
  $("filters").addEventListener("submit", event => event.preventDefault());
  let waiting = 0;
  $("filters").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(refresh, 120);
  });
  $("case-table").tHead.addEventListener("click", event => {
    const key = event.target.closest("button")?.dataset.key;
    if (!key) return;
    const column = tableColumns().find(column => column.key === key);
    const first = column.metric && column.larger === false ? -1 : 1;
    table.order = {key, direction: table.order.key === key ? -table.order.direction : first};
    drawTable();
  });
  $("case-table").tBodies[0].addEventListener("click", event => {
    const row = event.target.closest("tr[data-place]");
    const picked = getSelection(); // of someone who wants to copy a value from the row
    if (!row || (!event.target.closest("button") && !picked.isCollapsed && row.contains(picked.anchorNode))) return;
    openLightbox(table.rows, cases[row.dataset.place], row.querySelector("button"));
  });
  $("case-scroll").addEventListener("scroll", () => {
    const box = $("case-scroll");
    if (table.made < table.rows.length && box.scrollTop + 2 * box.clientHeight > box.scrollHeight) moreRows();
  });
  reset();
}

function refresh() {
  drawTable();
  if ($("gallery")) drawGallery();
}

// --- pictures ---------------------------------------------------------------------------------------------------------

/** Put the layers of a picture into a stack, from their base64 lines in the page. */
function fill(stack, one) {
  const block = one.picture === null ? null : $(`picture-${one.picture}`);
  if (!block) {
    stack.replaceChildren(make("span", {className: "empty"}, "no picture"));
    return;
  }
  const [width, height] = block.dataset.size.split(" ").map(Number);
  const lines = block.textContent.split("\n");
  const stacked = [["base", 0], ["prediction", 2], ["truth", 1]]; // a heat map would hide the truth
  const layers = stacked.map(([layer, index]) => lines[index] && make("img", {
    className: layer, width, height, decoding: "async", draggable: false,
    alt: layer === "base" ? `Image of ${one.name}` : "", src: `data:image/webp;base64,${lines[index]}`}));
  stack.replaceChildren(...layers.filter(Boolean));
}

const gallery = {rows: [], made: 0};
const whenNear = new IntersectionObserver(entries => {
  for (const {isIntersecting, target} of entries) {
    if (!isIntersecting) continue;
    whenNear.unobserve(target);
    fill(target, cases[target.dataset.place]);
  }
}, {rootMargin: NEAR});

function drawGallery() {
  const chosen = columnOf($("order").value);
  const pictured = cases.filter(one => one.picture !== null && passes(one));
  gallery.rows = chosen ? sorted(pictured, one => one.values[chosen.index], worstFirst(chosen)) : pictured;
  gallery.made = 0;
  whenNear.disconnect();
  $("gallery").replaceChildren();
  moreTiles();
  $("gallery-print-note").textContent = onPaper(AT_ONCE, gallery.rows.length, "picture");
}

function moreTiles() {
  const chosen = columnOf($("order").value);
  const slice = gallery.rows.slice(gallery.made, gallery.made + SLICE);
  const tiles = slice.map((one, index) => tileOf(one, chosen, gallery.made + index));
  $("gallery").append(...tiles);
  gallery.made += slice.length;
  const left = gallery.rows.length - gallery.made;
  $("more").hidden = left === 0;
  const all = gallery.rows.length.toLocaleString("en");
  $("more").textContent = left > SLICE ? `Show ${SLICE} more of ${all}` : `Show the last ${left}`;
  return tiles;
}

/** What was said of a case, and what is true, of the class that is looked at: "Volume, stroke", "12.0 / 9.50 mL". */
function linesOf(one) {
  const name = $("class").value;
  const wanted = looks.filter(index => ["", "all"].includes(name) || ["", name].includes(columns[index].class));
  return wanted.map(index => {
    const column = columns[index], said = one.values[index], truth = column.truth === null ? "" : one.values[column.truth];
    const values = [said, ...(column.truth === null ? [] : [truth])].map(value => shown(value, column)).join(" / ");
    return isEmpty(said) && isEmpty(truth) ? null : [column.label, values + (column.unit && `\u00a0${column.unit}`)];
  }).filter(Boolean).slice(0, MOST_LOOKS);
}

function tileOf(one, chosen, turn) {
  const stack = make("div", {className: "stack"});
  stack.dataset.place = one.place;
  const words = make("span", {className: "words"}, make("b", {title: one.name}, one.name), ...failureMarks(one));
  const lines = chosen ? [[chosen.label, shownWithUnit(one.values[chosen.index], chosen)]] : [];
  words.append(...[...lines, ...linesOf(one)].map(([label, value]) =>
    make("span", {className: "line"}, make("span", {}, label), " ", make("span", {}, value))));
  const button = make("button", {type: "button"}, stack, words);
  button.addEventListener("click", () => openLightbox(gallery.rows, one, button));
  if (turn < AT_ONCE) fill(stack, one); else whenNear.observe(stack);
  return make("li", {className: turn < AT_ONCE ? "" : "later"}, button);
}

function showLayer(layer, on) {
  root.classList.toggle(`no-${layer}`, !on);
  for (const box of document.querySelectorAll(`input[data-layer="${layer}"]`)) box.checked = on;
}

function startPictures() {
  for (const box of document.querySelectorAll("input[data-layer]")) {
    const there = document.querySelector(`script[data-layers~="${box.dataset.layer}"]`) !== null;
    box.closest("label").hidden = !there;
    showLayer(box.dataset.layer, true); // a browser may remember a box from before the page was loaded again
    box.addEventListener("change", () => showLayer(box.dataset.layer, box.checked));
  }
  if (!$("gallery")) return;
  fillSelect("order", ranked.map(column => [column.key, column.label + unitFor(column)]));
  $("order-tool").hidden = !ranked.length;
  if (columnOf(facts.worst_by)) $("order").value = facts.worst_by;
  $("order").addEventListener("change", drawGallery);
  $("more").addEventListener("click", () => moreTiles()[0].firstChild.focus({preventScroll: true}));
}

// --- lightbox ---------------------------------------------------------------------------------------------------------

const lightbox = {rows: [], at: 0, opener: null};

function openLightbox(rows, one, opener) {
  Object.assign(lightbox, {rows, at: rows.indexOf(one), opener});
  showCase();
  $("lightbox").showModal();
  $("close").focus();
}

function showCase() {
  const one = lightbox.rows[lightbox.at];
  $("lightbox-title").textContent = one.name;
  const about = [isEmpty(one.patient) ? "" : `patient ${one.patient}`, isEmpty(one.fold) ? "" : `fold ${one.fold}`,
    `${(lightbox.at + 1).toLocaleString("en")} of ${lightbox.rows.length.toLocaleString("en")}`];
  $("lightbox-about").textContent = about.filter(Boolean).join(" · ");
  fill($("stage"), one);
  $("previous").disabled = lightbox.at === 0;
  $("next").disabled = lightbox.at === lightbox.rows.length - 1;
  const values = given.filter(column => !isEmpty(one.values[column.index])).map(column =>
    make("div", {}, make("dt", {}, column.label), make("dd", {}, shownWithUnit(one.values[column.index], column))));
  const marks = one.failures.length ? [make("p", {}, ...failureMarks(one))] : [];
  $("lightbox-values").replaceChildren(...marks, make("dl", {}, ...values));
}

function step(by) {
  const at = Math.min(Math.max(lightbox.at + by, 0), lightbox.rows.length - 1);
  if (at === lightbox.at) return;
  lightbox.at = at;
  const active = document.activeElement;
  showCase();
  if (active.disabled) $("close").focus(); // a button that has just been switched off would lose the focus
}

function startLightbox() {
  $("close").addEventListener("click", () => $("lightbox").close());
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("lightbox").addEventListener("click", event => {
    if (event.target === $("lightbox")) $("lightbox").close(); // beside the box
  });
  $("lightbox").addEventListener("close", () => lightbox.opener?.focus({preventScroll: true}));
  $("lightbox").addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const keys = {ArrowLeft: () => step(-1), ArrowRight: () => step(1), Home: () => step(-Infinity), End: () => step(Infinity),
      t: () => showLayer("truth", root.classList.contains("no-truth")),
      p: () => showLayer("prediction", root.classList.contains("no-prediction"))};
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}

// --- the page itself --------------------------------------------------------------------------------------------------

function startTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const kept = { // a page from disk may not be allowed to keep anything
    get: () => { try { return localStorage.getItem("foldscan-theme"); } catch { return null; } },
    set: value => { try { localStorage.setItem("foldscan-theme", value); } catch { /* then not */ } },
  };
  const isDark = () => (root.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const show = () => { // what a click gives
    $("theme").textContent = isDark() ? "Light" : "Dark";
    $("theme").title = `Show the page in ${isDark() ? "light" : "dark"} colours`;
  };
  if (["dark", "light"].includes(kept.get())) root.dataset.theme = kept.get();
  $("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    kept.set(root.dataset.theme);
    show();
  });
  dark.addEventListener("change", show);
  show();
}

/** Mark the section that is being read. */
function startSections() {
  const links = [...document.querySelectorAll(".bar a")];
  const sections = links.map(link => $(link.hash.slice(1)));
  const mark = () => {
    const end = scrollY + innerHeight >= root.scrollHeight - 4;
    const begun = sections.findLastIndex(section => section.getBoundingClientRect().top < innerHeight / 3);
    const at = end ? sections.length - 1 : Math.max(0, begun);
    links.forEach((link, index) => {
      if (index !== at) link.removeAttribute("aria-current");
      else if (!link.hasAttribute("aria-current")) {
        link.setAttribute("aria-current", "true");
        link.closest("ul").scrollTo({left: link.offsetLeft - link.closest("ul").clientWidth / 2});
      }
    });
  };
  let waiting = false;
  addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; mark(); });
  }, {passive: true});
  mark();
}

function startCopy() {
  $("copy")?.addEventListener("click", async () => {
    const text = [...$("methods-text").children].map(part => part.textContent).join("\n\n");
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch { // not allowed here: the older way, and else at least the selection
      getSelection().selectAllChildren($("methods-text"));
      done = document.execCommand("copy");
    }
    $("copied").textContent = done ? "Copied." : "Selected: copy it with Ctrl+C.";
  });
}

/** On paper: what is folded is open, and the table has more than a screenful. */
function startPrint() {
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const one of closed) one.open = true;
    if (cases.length && table.made < ON_PAPER) moreRows(ON_PAPER - table.made);
  });
  addEventListener("afterprint", () => { for (const one of closed) one.open = false; });
}

root.classList.add("scripted");
startTheme();
startCopy();
startPictures();
if (cases.length) startTable();
startLightbox();
startPrint();
startSections();
