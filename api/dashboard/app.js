// The dashboard: who is looking, which view, and the two views. What users wrote is only ever set as text.
import { ApiProblem, get, pages } from "./api.js";
import { clear, h } from "./dom.js";
import { duration, steps, withError } from "./numbers.js";
import { draw } from "./picture.js";

const main = document.getElementById("main");
const notice = document.getElementById("notice");
const LIST_EVERY = 3000;
const JOB_EVERY = 1000;
const STAGES_EVERY = 5000;

let view = new AbortController();

// The key comes in the fragment (never sent to a server), is kept for this tab, and leaves the address bar.
function takeKeyFromAddress() {
  const found = /[#&]key=([^&]+)/.exec(location.hash);
  if (!found) return;
  sessionStorage.setItem("key", decodeURIComponent(found[1]));
  history.replaceState(null, "", location.pathname + location.search + "#/");
}

async function show() {
  view.abort();
  view = new AbortController();
  const { signal } = view;
  takeKeyFromAddress();
  document.getElementById("leave").hidden = !sessionStorage.getItem("key");
  document.title = "lambdahat";
  tell("");
  if (!sessionStorage.getItem("key")) return showLogin();
  const series = /^#\/series\/([\w-]+)$/.exec(location.hash);
  try {
    const { tenant } = await get("/v1/whoami", signal);
    document.getElementById("tenant").textContent = tenant.name;
    await (series ? showSeries(series[1], signal) : showList(signal));
  } catch (error) {
    if (signal.aborted) return;
    if (error instanceof ApiProblem && error.status === 401) return leave("The server does not know this key.");
    tell(error.message);
    if (!(error instanceof ApiProblem)) setTimeout(() => signal.aborted || show(), 3000);
  }
}

function tell(text) {
  notice.textContent = text;
  notice.hidden = !text;
}

function leave(why = "") {
  sessionStorage.removeItem("key");
  view.abort();
  document.getElementById("leave").hidden = true;
  document.getElementById("tenant").textContent = "";
  showLogin();
  tell(why);
}

function showLogin() {
  const field = h("input", { type: "password", name: "key", placeholder: "lh_…", autocomplete: "off", required: true });
  field.setAttribute("aria-label", "API key");
  const form = h("form", {}, field, h("button", { className: "primary" }, "Open"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem("key", field.value.trim());
    show();
  });
  const about = h("p", { className: "soft" }, "An API key opens the series of its tenant. ", h("code", {}, "lambdahat serve"), " prints one.");
  clear(main, h("div", { className: "login" }, h("h1", {}, "Local learning coefficients"), about, form));
  field.focus();
}

// Repeats `turn` until it says that it is done (true) or the view is left; a server that is away is asked again.
async function repeat(pause, signal, turn) {
  while (!signal.aborted) {
    try {
      if (await turn()) return;
      tell("");
    } catch (error) {
      if (signal.aborted || error instanceof ApiProblem) throw error;
      tell("No answer from the server; asking again.");
    }
    await new Promise((resolve) => setTimeout(resolve, pause()));
  }
}

// The list ------------------------------------------------------------------------------------------------------------

async function showList(signal) {
  const body = h("tbody");
  const heading = h("thead", {}, h("tr", {},
    h("th", {}, "name"), h("th", {}, "model"), h("th", { className: "number" }, "checkpoints"),
    h("th", { className: "number" }, "steps"), h("th", {}, "newest job"), h("th", {}, "created")));
  const more = h("button", { type: "button", hidden: true }, "Show more");
  let limit = 50;
  more.addEventListener("click", () => { limit = Math.min(limit + 50, 200); refresh(); });

  async function refresh() {
    const [list, models, jobs] = await Promise.all([
      get(`/v1/series?limit=${limit}`, signal), get("/v1/models?limit=200", signal), get("/v1/jobs?limit=200", signal)]);
    const modelNames = new Map(models.data.map((model) => [model.id, model.name]));
    const newest = new Map(jobs.data.toReversed().map((job) => [job.series, job]));
    body.replaceChildren(...list.data.map((series) => row(series, modelNames, newest.get(series.id))));
    more.hidden = !list.has_more || limit >= 200;
    return list.data.length;
  }

  function row(series, modelNames, job) {
    return h("tr", {},
      h("td", { className: "name" }, h("a", { href: `#/series/${series.id}` }, series.name)),
      h("td", { className: "name" }, modelNames.get(series.model) ?? series.model),
      h("td", { className: "number" }, String(series.num_checkpoints)),
      h("td", { className: "number" }, steps(series.first_step, series.last_step)),
      h("td", {}, job ? jobState(job) : h("span", { className: "soft" }, "none")),
      h("td", { className: "soft when" }, new Date(series.created_at).toLocaleString()));
  }

  const count = await refresh();
  const empty = h("p", { className: "soft" }, "None yet. Post one from a training loop with ", h("code", {}, "lambdahat.Recorder"),
    ", or a folder of checkpoints with ", h("code", {}, "lambdahat push FOLDER"), ".");
  const table = h("div", { className: "scroll" }, h("table", {}, heading, body));
  table.hidden = !count;
  empty.hidden = Boolean(count);
  clear(main, h("h1", {}, "Series"), empty, table, more);
  await repeat(() => LIST_EVERY, signal, async () => {
    table.hidden = !(await refresh());
    empty.hidden = !table.hidden;
  });
}

function jobState(job) {
  const share = job.state === "running" ? ` ${Math.floor(100 * job.progress.fraction)} %` : "";
  return h("span", { className: `state ${job.state}` }, job.state + share);
}

// One series ----------------------------------------------------------------------------------------------------------

async function showSeries(id, signal) {
  const series = await get(`/v1/series/${id}`, signal);
  const [model, dataset] = await Promise.all([
    get(`/v1/models/${series.model}`, signal), get(`/v1/datasets/${series.dataset}`, signal)]);
  document.title = `${series.name} – lambdahat`;

  const meta = h("p", { className: "meta" });
  const job = jobPanel();
  const picture = h("div", { id: "picture" });
  const legend = h("p", { className: "legend", hidden: true },
    h("span", { className: "a" }, "A: loss falls, LLC rises"), h("span", { className: "b" }, "B: LLC falls, loss nearly flat"),
    h("span", { className: "ends" }, "90 % intervals of its ends"), h("span", { className: "band" }, "95 % interval"), h("span", { className: "hollow" }, "verdict not ok: point at it to see why"),
    h("span", { className: "cross" }, "no finite number"));
  const transitions = h("section");
  const settings = h("details", { hidden: true }, h("summary", {}, "Settings of the job"), h("table", {}, h("tbody")));
  clear(main, h("h1", {}, series.name), meta, job.element, picture, legend, transitions, settings);

  let chosen = null; // a job picked by hand; otherwise the newest
  let known = "";    // the jobs in the menu
  let drawn = "";    // what the picture shows: job, its shards, its state
  let now = null;
  let stages = [];
  let curve = null;
  let lastStep = 0;
  job.menu.addEventListener("change", () => { chosen = job.menu.value; turn().catch(() => {}); });
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const redraw = () => { if (curve) draw(picture, curve, stages, lastStep); };
  dark.addEventListener("change", redraw, { signal });
  globalThis.addEventListener("resize", redraw, { signal });

  async function turn() {
    const [fresh, jobs] = await Promise.all([
      get(`/v1/series/${id}`, signal), get(`/v1/jobs?series=${id}&limit=50`, signal)]);
    meta.textContent = `${model.name}, ${model.num_parameters.toLocaleString()} parameters · ${dataset.name}, ` +
      `${dataset.num_samples.toLocaleString()} samples · ${fresh.num_checkpoints} checkpoints, steps ${steps(fresh.first_step, fresh.last_step)} · ${id}`;
    lastStep = fresh.last_step ?? 0;
    const ids = jobs.data.map((each) => each.id).join();
    if (ids !== known) { job.setJobs(jobs.data, chosen); known = ids; }
    now = jobs.data.find((each) => each.id === chosen) ?? jobs.data[0] ?? null;
    job.show(now, id);
    if (!now) return;
    // The stages of a job that follows change when nothing else does.
    const moment = now.following ? Math.floor(Date.now() / STAGES_EVERY) : "";
    const sight = `${now.id} ${now.state} ${now.progress.shards.succeeded} ${moment}`;
    if (sight === drawn) return;
    await refresh(now);
    drawn = sight;
  }

  async function refresh(of) {
    const [found, changes] = await Promise.all([
      get(`/v1/series/${id}/curve?job=${of.id}`, signal), get(`/v1/series/${id}/transitions?job=${of.id}`, signal)]);
    await addReasons(found, of.id, signal);
    curve = found;
    stages = changes.data;
    legend.hidden = !curve.points.length;
    await draw(picture, curve, stages, lastStep);
    showTransitions(transitions, stages, of);
    showSettings(settings, of.settings);
  }

  await repeat(() => (now && ["queued", "running"].includes(now.state) ? JOB_EVERY : LIST_EVERY), signal, turn);
}

// A curve says that something is wrong; why, the results say.
async function addReasons(curve, jobId, signal) {
  const points = new Map(curve.points.map((point) => [point.checkpoint, point]));
  const wrong = curve.points.some((point) => curve.quantities.some((name) => point[name] && point[name].verdict !== "ok"));
  if (!wrong) return;
  for await (const result of pages(`/v1/jobs/${jobId}/results`, signal)) {
    for (const name of Object.keys(result.quantities)) {
      const quantity = points.get(result.checkpoint)?.[name];
      if (quantity) quantity.reason = result.reason;
    }
  }
}

function jobPanel() {
  const state = h("span", { className: "state" });
  const about = h("span", { className: "soft" });
  const menu = h("select", {});
  menu.setAttribute("aria-label", "job");
  const fill = h("div");
  const bar = h("div", { className: "bar" }, fill);
  bar.setAttribute("role", "progressbar");
  const error = h("p", { className: "error", hidden: true });
  const element = h("section", { className: "job" },
    h("div", { className: "row" }, state, about, h("span", { className: "last" }, menu)), bar, error);

  function setJobs(jobs, chosen) {
    menu.replaceChildren(...jobs.map((job) => h("option", { value: job.id }, `job of ${new Date(job.created_at).toLocaleString()}`)));
    if (chosen) menu.value = chosen;
    menu.hidden = jobs.length === 0;
  }

  function show(job, series) {
    bar.hidden = !job;
    state.className = `state ${job?.state ?? "cancelled"}`;
    state.textContent = job?.state ?? "no job yet";
    about.textContent = job ? describe(job) : `start one: lambdahat run ${series}`;
    error.hidden = !job?.error;
    error.textContent = [job?.error?.detail, job?.error?.first?.detail].filter(Boolean).join("; ");
    if (!job) return;
    fill.style.width = `${100 * job.progress.fraction}%`;
    bar.setAttribute("aria-valuenow", String(Math.floor(100 * job.progress.fraction)));
  }

  return { element, menu, setJobs, show };
}

function describe(job) {
  const { done, total, rate, fraction, seconds_left, shards } = job.progress;
  const parts = [...(job.following ? ["follows its series"] : []), `${Math.floor(100 * fraction)} %`, `${done.toLocaleString()} of ${total.toLocaleString()} row-steps`];
  if (["queued", "running"].includes(job.state)) {
    if (rate) parts.push(`${Math.round(rate).toLocaleString()}/s`);
    if (seconds_left !== null) parts.push(`${duration(seconds_left)} left`);
  } else if (job.started_at && job.finished_at) {
    parts.push(`in ${duration((Date.parse(job.finished_at) - Date.parse(job.started_at)) / 1000)}`);
  }
  const counts = Object.entries(shards).filter(([, count]) => count).map(([name, count]) => `${count} ${name}`);
  if (counts.length) parts.push(`shards: ${counts.join(", ")}`);
  return parts.join(" · ");
}

function showTransitions(section, stages, job) {
  const heading = h("h2", {}, "Transitions");
  if (!stages.length) {
    const later = job.following ? "None found so far." : "They are found when every checkpoint is done.";
    const why = job.state === "succeeded" ? "None found." : later;
    return clear(section, heading, h("p", { className: "soft" }, why));
  }
  const meaning = { A: "the loss falls, the LLC rises", B: "the LLC falls, the loss changes only slightly" };
  const hasEnsemble = stages.some((stage) => stage.survival !== null);
  const rows = stages.map((stage) => h("tr", {},
    h("td", {}, h("span", { className: `type ${stage.type ?? "neither"}` }, stage.type ?? "–")),
    h("td", { className: "number" }, ...end(stage.from_step, stage.from_step_low, stage.from_step_high)),
    h("td", { className: "number" }, ...end(stage.to_step, stage.to_step_low, stage.to_step_high)),
    h("td", { className: "number" }, withError(stage.delta_loss.value, stage.delta_loss.std_error)),
    h("td", { className: "number" }, withError(stage.delta_llc.value, stage.delta_llc.std_error)),
    h("td", { className: "number" }, percent(stage[`probability_${stage.type?.toLowerCase() ?? "neither"}`])),
    ...(hasEnsemble ? [h("td", { className: "number" }, percent(stage.survival))] : []),
    h("td", { className: "soft", title: stage.details.reason ?? "" }, meaning[stage.type] ?? "neither A nor B")));
  const numbers = ["from step", "to step", "Δ loss", "Δ LLC", "probability", ...(hasEnsemble ? ["survives"] : [])];
  const titles = h("tr", {}, h("th", {}, "type"), ...numbers.map((t) => h("th", { className: "number" }, t)), h("th"));
  return clear(section, heading, h("div", { className: "scroll" }, h("table", {}, h("thead", {}, titles), h("tbody", {}, ...rows))));
}

// A step and its 90 % interval.
function end(step, low, high) {
  const interval = low === null || low === high ? "" : ` (${steps(low, high)})`;
  return [step.toLocaleString(), h("span", { className: "soft", title: "90 % interval" }, interval)];
}

const percent = (share) => (share === null ? "–" : `${Math.round(100 * share)} %`);

function showSettings(details, settings) {
  const rows = flat(settings).map(([name, value]) => h("tr", {}, h("td", { className: "soft" }, name), h("td", {}, h("code", {}, value))));
  details.querySelector("tbody").replaceChildren(...rows);
  details.hidden = false;
}

function flat(value, name = "") {
  if (value === null || typeof value !== "object") return [[name, value === null ? "–" : String(value)]];
  const entries = Object.entries(value);
  if (!entries.length) return [[name, "defaults"]];
  return entries.flatMap(([key, inner]) => flat(inner, name ? `${name}.${key}` : key));
}

document.getElementById("leave").addEventListener("click", () => leave());
globalThis.addEventListener("hashchange", show);
show();
