// A chart of five minutes as an SVG: lines over time, with a cursor for the pointer and for the arrow keys.
const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 150, LEFT = 52, BOTTOM = 20, TOP = 8;

function draw(tag, attributes = {}, text = "") {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

/** The next of 1, 2, 2.5, 5 times a power of ten at or above a number. */
export function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 2.5, 5, 10].find((step) => step * power >= value * 0.999999);
}

const tick = (value) => value >= 1e6 ? `${value / 1e6} M` : value >= 1e4 ? `${value / 1e3} k` : String(Number(value.toPrecision(3)));

function number(value) {
  if (value === null || value === undefined) return "–";
  return value >= 100 ? Math.round(value).toLocaleString("en") : value >= 10 ? value.toFixed(1) : value === 0 ? "0" : value.toFixed(2);
}

/** The paths of a line, broken where nothing was measured, and of the points that stand alone. */
function trace(points, key, x, y) {
  let path = "", dots = "", open = false;
  points.forEach((point, place) => {
    const value = point[key];
    if (value === null) { open = false; return; }
    const lone = !open && (place + 1 >= points.length || points[place + 1][key] === null);
    const at = `${x(place).toFixed(1)} ${y(value).toFixed(1)}`;
    path += `${open ? "L" : "M"}${at}`;
    if (lone) dots += `M${at}h0.01`;
    open = true;
  });
  return { path, dots };
}

/** Put a chart into a parent; returns `show(points)`. */
export function drawChart(parent, title, unit, keys) {
  const figure = document.createElement("figure"), caption = document.createElement("figcaption");
  const heading = document.createElement("h3"), when = document.createElement("span"), legend = document.createElement("span");
  heading.textContent = title;
  when.className = "when";
  heading.append(when);
  legend.className = "key";
  caption.append(heading, legend);
  const values = keys.map((key, place) => {
    const one = document.createElement("span"), value = document.createElement("b");
    one.className = `c${unit === "/s" && place ? 2 : place}`;
    value.textContent = "–";
    one.append(`${key} `, value);
    legend.append(one);
    return value;
  });
  const svg = draw("svg", { class: "chart", role: "img", tabindex: "0" });
  figure.append(caption, svg);
  parent.append(figure);
  let points = [], cursor = null;

  function tellAt(place) {
    const point = points[place ?? points.length - 1];
    const past = place !== null && point ? ` ${-point.ago < 60 ? `${-point.ago} s` : `${Math.floor(-point.ago / 60)} min ${-point.ago % 60} s`} ago` : "";
    when.textContent = past;
    values.forEach((value, number_) => {
      const seen = point ? point[keys[number_]] : null;
      value.textContent = `${number(seen)}${seen === null || unit === "/s" ? "" : ` ${unit}`}${seen !== null && unit === "/s" ? "/s" : ""}`;
    });
  }

  function redraw() {
    const width = Math.max(svg.clientWidth, 200), right = 4;
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const all = points.flatMap((point) => keys.map((key) => point[key])).filter((value) => value !== null);
    const top = roundUp(Math.max(0, ...all));
    const x = (place) => LEFT + (width - LEFT - right) * place / Math.max(points.length - 1, 1);
    const y = (value) => HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value / top;
    const parts = [];
    for (const share of [0, 0.5, 1]) {
      const at = y(top * share);
      parts.push(draw("line", { class: "rule", x1: LEFT, x2: width - right, y1: at, y2: at }));
      parts.push(draw("text", { x: LEFT - 8, y: at + 4, "text-anchor": "end" }, share === 1 && unit === "ms" ? `${tick(top)} ms` : tick(top * share)));
    }
    parts.push(draw("text", { x: LEFT, y: HEIGHT - 3 }, "5 min ago"));
    parts.push(draw("text", { x: width - right, y: HEIGHT - 3, "text-anchor": "end" }, "now"));
    if (all.length === 0 || (unit === "/s" && !all.some((value) => value > 0))) {
      parts.push(draw("text", { x: (LEFT + width) / 2, y: HEIGHT / 2 - 14, "text-anchor": "middle" }, "No requests in the last five minutes"));
    }
    if (unit === "/s" && points.length) {
      parts.push(draw("path", { class: "area c0", d: `${trace(points, keys[0], x, y).path}L${x(points.length - 1)} ${y(0)}L${x(0)} ${y(0)}Z` }));
    }
    keys.map((key, place) => [key, unit === "/s" && place ? 2 : place]).reverse().forEach(([key, colour]) => {
      if (unit === "/s" && colour === 2 && !points.some((point) => point[key] > 0)) return;
      const { path, dots } = trace(points, key, x, y);
      parts.push(draw("path", { class: `line c${colour}`, d: path }), draw("path", { class: `dot c${colour}`, d: dots }));
    });
    if (cursor !== null) parts.push(draw("line", { class: "cursor", x1: x(cursor), x2: x(cursor), y1: TOP, y2: HEIGHT - BOTTOM }));
    svg.replaceChildren(...parts);
    tellAt(cursor);
    svg.setAttribute("aria-label", `${title} of the last five minutes: ${keys.map((key, place) => `${key} ${values[place].textContent}`).join(", ")}${when.textContent}. Arrow keys move back in time.`);
  }

  function move(place) {
    cursor = place === null ? null : Math.min(Math.max(place, 0), points.length - 1);
    redraw();
  }
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    move(Math.round((event.clientX - box.left - LEFT) / (box.width - LEFT - 4) * (points.length - 1)));
  });
  svg.addEventListener("pointerleave", () => move(null));
  svg.addEventListener("blur", () => move(null));
  svg.addEventListener("keydown", (event) => {
    const at = cursor ?? points.length - 1;
    const place = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: points.length - 1, Escape: null }[event.key];
    if (place === undefined) return;
    event.preventDefault();
    move(place);
  });
  new ResizeObserver(redraw).observe(svg);
  return { show(found) { points = found; redraw(); } };
}
