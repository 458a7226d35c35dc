// The picture of a series: the same panels, colours and marks as `lambdahat plot` draws.
import { withError } from "./numbers.js";

const PANELS = [
  { label: "LLC  λ̂", height: 2.2, log: false, lines: [["llc", "λ̂", "--ink"]] },
  // Linear: a transition's type is a matter of how much the loss changes, not of its factors.
  { label: "loss", height: 1.3, log: false, lines: [["loss", "loss", "--ink"]] },
  {
    label: "Hessian", height: 1.2, log: true,
    lines: [["hessian_trace", "trace", "--ink"], ["hessian_max_eigenvalue", "largest eigenvalue", "--second"]],
  },
  { label: "near-zero share", height: 1, log: false, lines: [["hessian_near_zero_share", "near-zero share", "--ink"]] },
];
const UNIT = 130; // pixels of height 1
const GAP = 26;
const MARGIN = { l: 78, r: 16, t: 54, b: 46 };

// Loaded when there is something to draw.
let loading = null;
function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = Object.assign(document.createElement("script"), { src: new URL("plotly.min.js", import.meta.url) });
    script.addEventListener("load", () => resolve(globalThis.Plotly));
    script.addEventListener("error", () => { loading = null; reject(new Error("Plotly could not be loaded.")); });
    document.head.append(script);
  });
  return loading;
}

// lastStep: of the series, so that the axis stands still while points come in.
export async function draw(element, curve, transitions, lastStep) {
  const Plotly = await plotly();
  const panels = PANELS.filter((panel) => panel.lines.some(([name]) => column(curve, name).length));
  if (!panels.length) return Plotly.purge(element);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const inner = panels.reduce((sum, panel) => sum + panel.height * UNIT, GAP * (panels.length - 1));
  const layout = base(colour, element.clientWidth, inner + MARGIN.t + MARGIN.b, lastStep);
  const traces = [];
  let top = inner;
  panels.forEach((panel, index) => {
    const axis = index ? `y${index + 1}` : "y";
    const bottom = top - panel.height * UNIT;
    const values = panel.lines.flatMap(([name]) => column(curve, name).map(([, q]) => q.value)).filter((v) => v !== null);
    layout[`yaxis${index ? index + 1 : ""}`] = {
      domain: [Math.max(bottom / inner, 0), top / inner], ...scale(panel, values),
      gridcolor: colour("--grid"), linecolor: colour("--soft"), showline: true, zerolinecolor: colour("--line"),
    };
    layout.annotations.push(heading(panel, axis));
    panel.lines.forEach((line) => traces.push(...lines(curve, line, colour(line[2]), axis, panel)));
    layout.shapes.push(...transitions.map((stage) => shade(stage, axis, colour)));
    layout.annotations.push(...crosses(curve, panel, axis, colour));
    top = bottom - GAP;
  });
  layout.xaxis.anchor = panels.length > 1 ? `y${panels.length}` : "y";
  layout.annotations.push(...transitions.map((stage) => mark(stage, colour)));
  layout.shapes.push(...transitions.flatMap((stage) => ends(stage, colour)));
  layout.legend.y = legendPlace(panels, inner);
  await Plotly.react(element, traces, layout, { displaylogo: false, responsive: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] });
}

// Logarithmic where all values are positive; its labels at powers of ten, if it has at least two of them.
function scale(panel, values) {
  if (!panel.log || !values.every((value) => value > 0)) return { type: "linear", nticks: 6 };
  const [low, high] = [Math.log10(Math.min(...values)), Math.log10(Math.max(...values))];
  const room = 0.08 * (high - low) + 0.05;
  const ticks = Math.floor(high) - Math.ceil(low) >= 1 ? { dtick: 1 } : { dtick: "D2" };
  return { type: "log", tickformat: "~g", range: [low - room, high + room], ...ticks };
}

function heading(panel, axis) {
  return {
    text: panel.label, textangle: -90, showarrow: false, xref: "paper", x: 0, xshift: -56, xanchor: "center",
    yref: `${axis} domain`, y: 0.5, yanchor: "middle",
  };
}

function base(colour, width, height, last) {
  const decades = [];
  for (let step = 1; step <= last; step *= 10) decades.push(step);
  const ticks = [0, ...decades];
  const family = getComputedStyle(document.body).fontFamily;
  return {
    width, height, margin: MARGIN, uirevision: "keep what was zoomed", shapes: [], annotations: [], hovermode: "closest", dragmode: "zoom",
    paper_bgcolor: colour("--paper"), plot_bgcolor: colour("--paper"),
    font: { family, size: 13, color: colour("--ink") },
    hoverlabel: { bgcolor: colour("--panel"), bordercolor: colour("--line"), font: { color: colour("--ink"), family }, align: "left" },
    legend: { x: 1, xanchor: "right", yanchor: "bottom", orientation: "h", traceorder: "normal", bgcolor: "rgba(0,0,0,0)", font: { size: 12 } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--soft"), activecolor: colour("--ink") },
    // log(step + 1), so that step 0 has a place.
    xaxis: {
      type: "log", title: { text: "training step" }, range: [-0.01, Math.log10(last + 1) * 1.01 + 0.005],
      tickvals: ticks.map((step) => step + 1), ticktext: ticks.map((step) => step.toLocaleString()),
      gridcolor: colour("--grid"), linecolor: colour("--soft"), showline: true, ticks: "outside", tickcolor: colour("--soft"), zeroline: false,
      showspikes: true, spikemode: "across", spikethickness: 1, spikedash: "solid", spikecolor: colour("--soft"),
    },
  };
}

function column(curve, name) {
  return curve.points.filter((point) => point[name]).map((point) => [point.step, point[name]]);
}

function lines(curve, [name, title], ink, axis, { log, lines: { length } }) {
  const found = column(curve, name).filter(([, q]) => q.value !== null);
  const x = found.map(([step]) => step + 1);
  // A band that reaches below zero goes out of sight on a logarithmic axis, instead of breaking.
  const lowest = log && found.every(([, q]) => q.value > 0) ? 1e-12 : -Infinity;
  const edge = (sign) => found.map(([, q]) => Math.max(q.value + sign * 1.96 * (q.std_error ?? 0), lowest));
  const common = { x, yaxis: axis, type: "scatter", showlegend: false };
  const band = { ...common, mode: "lines", line: { width: 0 }, hoverinfo: "skip" };
  const ok = found.map(([, q]) => q.verdict === "ok");
  const paper = getComputedStyle(document.documentElement).getPropertyValue("--paper").trim();
  return [
    { ...band, y: edge(1) },
    { ...band, y: edge(-1), fill: "tonexty", fillcolor: `${ink}2e` },
    {
      ...common, y: found.map(([, q]) => q.value), mode: "lines+markers", name: title, showlegend: length > 1,
      line: { color: ink, width: 1.6 },
      marker: { size: ok.map((good) => (good ? 5 : 7)), color: ok.map((good) => (good ? ink : paper)), line: { color: ink, width: 1.4 }, opacity: 1 },
      text: found.map(([step, q]) => hover(step, title, q)), hovertemplate: "%{text}<extra></extra>",
    },
  ];
}

// A step without a finite number has no height: a cross at the foot of its panel.
function crosses(curve, panel, axis, colour) {
  return panel.lines.flatMap(([name, title, ink]) => column(curve, name).filter(([, q]) => q.value === null).map(([step, q]) => ({
    text: "✕", x: Math.log10(step + 1), xref: "x", y: 0.02, yref: `${axis} domain`, yanchor: "bottom", showarrow: false,
    font: { size: 13, color: colour(ink) }, hovertext: hover(step, title, q),
  })));
}

function hover(step, title, quantity) {
  const rows = [`step ${step.toLocaleString()}`, `<b>${title} ${withError(quantity.value, quantity.std_error)}</b>`];
  rows.push(quantity.verdict === "ok" ? "ok" : wrap(`${quantity.verdict}: ${quantity.reason ?? ""}`).map(plain).join("<br>"));
  return rows.join("<br>");
}

// Plotly reads tags in its texts.
function plain(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function wrap(text, width = 60) {
  const rows = [""];
  for (const word of text.split(" ")) {
    if (rows.at(-1).length + word.length > width) rows.push("");
    rows[rows.length - 1] += (rows.at(-1) && " ") + word;
  }
  return rows;
}

function typeColour(stage, colour) {
  return colour({ A: "--a", B: "--b" }[stage.type] ?? "--neither");
}

function shade(stage, axis, colour) {
  return {
    type: "rect", xref: "x", x0: stage.from_step + 1, x1: stage.to_step + 1, yref: `${axis} domain`, y0: 0, y1: 1,
    fillcolor: typeColour(stage, colour), opacity: 0.16, line: { width: 0 }, layer: "below",
  };
}

function mark(stage, colour) {
  const middle = (Math.log10(stage.from_step + 1) + Math.log10(stage.to_step + 1)) / 2;
  return {
    text: `<b>${stage.type ?? "·"}</b>`, x: middle, xref: "x", y: 1, yref: "paper", yanchor: "bottom", showarrow: false,
    font: { size: 15, color: typeColour(stage, colour) },
  };
}

// The 90 % intervals of both ends, as bars on top.
function ends(stage, colour) {
  const bar = { type: "line", xref: "x", yref: "paper", y0: 1, y1: 1, line: { color: typeColour(stage, colour), width: 4 } };
  return ["from", "to"]
    .map((end) => [stage[`${end}_step_low`], stage[`${end}_step_high`]])
    .filter(([low, high]) => low !== null && high > low)
    .map(([low, high]) => ({ ...bar, x0: low + 1, x1: high + 1 }));
}

// The only panel with two lines is the Hessian's: their names stand above it.
function legendPlace(panels, inner) {
  const index = panels.findIndex((panel) => panel.lines.length > 1);
  const above = panels.slice(0, Math.max(index, 0)).reduce((sum, panel) => sum + panel.height * UNIT + GAP, 0);
  return 1 - above / inner;
}
