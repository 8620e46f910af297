// The page: what is chosen, what is asked for, what came back.

import { asBlob, call, lines, Problem, useKey } from "./service.js";
import { asHeat, Viewer } from "./viewer.js";

const $ = (id) => document.getElementById(id);
const viewer = new Viewer($("viewer"));
const state = { image: null, name: "", model: null, result: null, abort: null, asked: "", sent: null };

async function showModel() {
  try {
    state.model = await (await call("v1/model")).json();
  } catch (error) {
    $("model").textContent = "no model";
    return showProblem(error);
  }
  const { version, bands, sampler, active, errors, desired } = state.model;
  if (!active) {
    $("model").textContent = "the model is being loaded";
    if (Object.keys(errors).length) showProblem(new Problem(503, "No model", Object.values(errors)[0]));
    return;
  }
  $("model").textContent = `model ${version}${desired === active ? "" : " (another version is being loaded)"}`;
  $("bands").textContent = `${bands.length} bands (${bands.join(", ")})`;
  $("steps").max = Math.max(20, sampler.steps);
  $("samples").max = Math.max(8, sampler.samples);
  for (const name of ["steps", "samples"]) setRange(name, sampler[name]);
  $("seed").value = sampler.seed;
  $("guidance").value = sampler.guidance;
  legend({});
}

function setRange(name, value) {
  $(name).value = value;
  $(`${name}-value`).textContent = value;
}

function choose(blob, name) {
  Object.assign(state, { image: blob, name });
  $("change").textContent = name;
  $("refine").disabled = false;
  $("problem").hidden = true;
  return refine();
}

async function refine() {
  if (!state.image || state.abort) return;
  state.abort = new AbortController();
  state.result = null;
  offerDownloads(false);
  busy(true);
  const started = performance.now();
  const body = new FormData();
  body.append("image", state.image, state.name);
  if ($("own").files[0]) body.append("coarse", $("own").files[0]);
  const query = new URLSearchParams({ steps: $("steps").value, samples: $("samples").value });
  for (const name of ["seed", "guidance"]) if ($(name).value !== "") query.set(name, $(name).value);
  Object.assign(state, { asked: query.toString(), sent: body });
  query.set("outputs", "image,coarse,refined,uncertainty");
  query.set("formats", "png,tiff");
  try {
    const answer = await call(`v1/refine/stream?${query}`, { method: "POST", body, signal: state.abort.signal });
    for await (const told of lines(answer)) await show(told, started);
  } catch (error) {
    if (error.name !== "AbortError") showProblem(error);
    else $("step").textContent = "stopped";
  } finally {
    state.abort = null;
    busy(false);
  }
}

async function show(told, started) {
  if (told.type === "result") return finish(told, started);
  const picture = await createImageBitmap(asBlob(told.png, "image/png"));
  if (told.type === "image") {
    $("empty").hidden = true;
    viewer.begin(told.width, told.height);
    viewer.set("image", picture);
  } else if (told.type === "coarse") {
    viewer.set("coarse", picture);
    $("step").textContent = "coarse map";
  } else {
    viewer.set("refined", picture);
    $("progress").value = told.progress;
    const part = told.parts > 1 ? `, part ${told.part} of ${told.parts}` : "";
    $("step").textContent = `sample ${told.sample} of ${told.samples}, step ${told.step} of ${told.steps}${part}`;
  }
}

async function finish(told, started) {
  state.result = {};
  for (const [name, types] of Object.entries(told.outputs)) {
    state.result[name] = Object.fromEntries(Object.entries(types).map(([type, data]) => [type, asBlob(data, type)]));
  }
  for (const name of ["coarse", "refined"]) viewer.set(name, await createImageBitmap(state.result[name]["image/png"]));
  viewer.set("uncertainty", await asHeat(state.result.uncertainty["image/png"]));
  legend(told.shares);
  // What has a dash is a part of what has none.
  const stages = Object.entries(told.milliseconds).filter(([name]) => !name.includes("-"));
  facts({
    "Time": `${seconds(performance.now() - started)}`,
    "Of it": stages.map(([name, value]) => `${name} ${seconds(value)}`).join(", "),
    "Windows": Object.entries(told.windows).map(([name, count]) => `${name} ${count}`).join(", "),
    "Model": told.model,
  });
  $("results").hidden = false;
  offerDownloads(true);
}

const seconds = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

function legend(shares) {
  $("legend").replaceChildren(...(state.model?.classes || []).map(({ name, colour }) => {
    const [item, patch, label, share] = ["li", "i", "span", "span"].map((tag) => document.createElement(tag));
    patch.style.background = colour;
    label.textContent = name;
    share.textContent = name in shares ? `${(shares[name] * 100).toFixed(1)} %` : "";
    item.append(patch, label, share);
    return item;
  }));
}

function facts(told) {
  $("facts").replaceChildren(...Object.entries(told).flatMap(([name, value]) => {
    const [term, text] = ["dt", "dd"].map((tag) => document.createElement(tag));
    term.textContent = name;
    text.textContent = value;
    return [term, text];
  }));
}

// What is saved is the map that is shown; there is none while one is made, or after an error.
function offerDownloads(yes) {
  for (const name of ["as-tiff", "as-png", "as-geojson"]) $(name).disabled = !yes;
}

function busy(yes) {
  $("working").hidden = !yes;
  $("refine").disabled = yes || !state.image;
  $("refine").textContent = yes ? "Working …" : "Refine";
  if (yes) {
    $("progress").value = 0;
    $("step").textContent = "sending";
    $("problem").hidden = true;
  }
}

function showProblem(error) {
  $("problem").textContent = error.message;
  $("problem").hidden = false;
  if (error.status === 401) {
    $("key-button").hidden = false;
    if (!$("key-dialog").open) $("key-dialog").showModal();
  }
}

function save(blob, suffix) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${state.name.replace(/\.[^.]*$/, "")}-refined.${suffix}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// Polygons are made on demand: the same seed gives the same map.
async function saveGeoJson() {
  $("as-geojson").disabled = true;
  try {
    const headers = { accept: "application/geo+json" };
    const answer = await call(`v1/refine?${state.asked}`, { method: "POST", body: state.sent, headers });
    save(await answer.blob(), "geojson");
  } catch (error) {
    showProblem(error);
  } finally {
    $("as-geojson").disabled = !state.result;
  }
}

async function useSample() {
  try {
    await choose(await (await call("v1/sample")).blob(), "sample.npy");
  } catch (error) {
    showProblem(error);
  }
}

for (const name of ["steps", "samples"]) {
  $(name).addEventListener("input", () => setRange(name, $(name).value));
}
$("choose").addEventListener("click", () => $("file").click());
$("change").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => $("file").files[0] && choose($("file").files[0], $("file").files[0].name));
$("sample").addEventListener("click", useSample);
$("form").addEventListener("submit", (event) => { event.preventDefault(); refine(); });
$("stop").addEventListener("click", () => state.abort?.abort());
$("opacity").addEventListener("input", () => { viewer.opacity = $("opacity").value / 100; viewer.draw(); });
$("uncertainty").addEventListener("change", () => {
  viewer.showUncertainty = $("uncertainty").checked;
  $("ramp").hidden = !viewer.showUncertainty;
  viewer.draw();
});
$("zoom-in").addEventListener("click", () => viewer.zoom(1.5));
$("zoom-out").addEventListener("click", () => viewer.zoom(1 / 1.5));
$("fit").addEventListener("click", () => viewer.fit());
$("as-tiff").addEventListener("click", () => save(state.result.refined["image/tiff"], "tif"));
$("as-png").addEventListener("click", () => save(state.result.refined["image/png"], "png"));
$("as-geojson").addEventListener("click", saveGeoJson);
$("key-button").addEventListener("click", () => $("key-dialog").showModal());
$("key-dialog").addEventListener("close", () => {
  if ($("key-dialog").returnValue !== "use") return;
  useKey($("key").value);
  $("problem").hidden = true;
  showModel();
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("viewer").classList.toggle("over", name === "dragover");
    const file = name === "drop" && event.dataTransfer.files[0];
    if (file) choose(file, file.name);
  });
}
showModel();
