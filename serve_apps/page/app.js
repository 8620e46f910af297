// The page: the chosen image, the request, its result.

import { asBlob, call, lines, Problem, useKey } from "./service.js";
import { asHeat, Viewer } from "./viewer.js";

const $ = (id) => document.getElementById(id);
const viewer = new Viewer($("viewer"));
const state = { image: null, name: "", model: null, result: null, abort: null, query: "", body: null };

async function showModel() {
  try {
    state.model = await (await call("v1/model")).json();
  } catch (error) {
    $("model").textContent = "no model";
    return showProblem(error);
  }
  const { version, bands, sampler, active, errors, desired, limits } = state.model;
  if (!active) {
    $("model").textContent = "the model is being loaded";
    if (Object.keys(errors).length) showProblem(new Problem(503, "No model", Object.values(errors)[0]));
    return;
  }
  $("model").textContent = `model ${version}${desired === active ? "" : " (another version is being loaded)"}`;
  $("bands").textContent = `${bands.length} bands (${bands.join(", ")})`;
  $("limit").textContent = `; up to ${limits.pixels.toLocaleString("en")} px here, in ${Math.ceil(limits.seconds)} s`;
  $("steps").max = Math.min(limits.steps, Math.max(20, sampler.steps));
  $("samples").max = Math.min(limits.samples, Math.max(8, sampler.samples));
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
  state.abort?.abort();
  Object.assign(state, { image: blob, name });
  $("change").textContent = name;
  $("refine").disabled = false;
  $("problem").hidden = true;
  return refine();
}

// A map of another image, or half of a map, must not pass for the result.
function clearResult() {
  state.result = null;
  viewer.clear();
  $("results").hidden = true;
  $("empty").hidden = false;
  offerDownloads(false);
}

function checkSettings() {
  const invalid = document.querySelector("#form :invalid");
  if (!invalid) return true;
  $("more").open = $("more").open || $("more").contains(invalid);
  invalid.reportValidity();
  const label = invalid.closest("label").firstChild.textContent.trim();
  showProblem(new Problem(0, label, invalid.validationMessage));
  return false;
}

async function refine() {
  if (!state.image || !checkSettings()) return;
  const abort = new AbortController();
  state.abort = abort;
  clearResult();
  $("empty").hidden = true;
  busy(true);
  const started = performance.now();
  const body = new FormData();
  body.append("image", state.image, state.name);
  if ($("own").files[0]) body.append("coarse", $("own").files[0]);
  const query = new URLSearchParams({ steps: $("steps").value, samples: $("samples").value });
  for (const name of ["seed", "guidance"]) if ($(name).value !== "") query.set(name, $(name).value);
  Object.assign(state, { query: query.toString(), body });
  query.set("outputs", "image,coarse,refined,uncertainty");
  query.set("formats", "png,tiff");
  try {
    const answer = await call(`v1/refine/stream?${query}`, { method: "POST", body, signal: abort.signal });
    for await (const event of lines(answer)) {
      abort.signal.throwIfAborted();
      await show(event, started);
    }
  } catch (error) {
    if (error.name !== "AbortError") {
      clearResult();
      showProblem(error);
    } else if (state.abort === abort) {
      viewer.name("refined", "stopped: not finished");
      $("empty").hidden = viewer.size !== null;
    }
  } finally {
    if (state.abort === abort) {
      state.abort = null;
      busy(false);
    }
  }
}

async function show(event, started) {
  if (event.type === "result") return finish(event, started);
  const picture = await createImageBitmap(asBlob(event.png, "image/png"));
  if (event.type === "image") {
    $("empty").hidden = true;
    viewer.begin(event.width, event.height);
    viewer.set("image", picture);
  } else if (event.type === "coarse") {
    viewer.set("coarse", picture);
    $("step").textContent = "coarse map";
  } else {
    viewer.set("refined", picture);
    viewer.name("refined", "being refined");
    $("progress").value = event.progress;
    const part = event.parts > 1 ? `, part ${event.part} of ${event.parts}` : "";
    $("step").textContent = `sample ${event.sample} of ${event.samples}, step ${event.step} of ${event.steps}${part}`;
  }
}

async function finish(result, started) {
  state.result = {};
  for (const [name, types] of Object.entries(result.outputs)) {
    state.result[name] = Object.fromEntries(Object.entries(types).map(([type, data]) => [type, asBlob(data, type)]));
  }
  for (const name of ["coarse", "refined"]) viewer.set(name, await createImageBitmap(state.result[name]["image/png"]));
  viewer.name("refined", "refined");
  viewer.set("uncertainty", await asHeat(state.result.uncertainty["image/png"]));
  legend(result.shares);
  // Names with a dash are parts of those without.
  const stages = Object.entries(result.milliseconds).filter(([name]) => !name.includes("-"));
  facts({
    "Time": `${seconds(performance.now() - started)}`,
    "Of it": stages.map(([name, value]) => `${name} ${seconds(value)}`).join(", "),
    "Windows": Object.entries(result.windows).map(([name, count]) => `${name} ${count}`).join(", "),
    "Model": result.model,
    ...(result.bands ? { "Bands": result.bands } : {}),
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

function facts(values) {
  $("facts").replaceChildren(...Object.entries(values).flatMap(([name, value]) => {
    const [term, text] = ["dt", "dd"].map((tag) => document.createElement(tag));
    term.textContent = name;
    text.textContent = value;
    return [term, text];
  }));
}

// Downloads are of the map that is shown: there is none while one is made, or after an error.
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
    const answer = await call(`v1/refine?${state.query}`, { method: "POST", body: state.body, headers });
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
  for (const id of ["ramp", "heat-line"]) $(id).hidden = !viewer.showUncertainty;
  viewer.draw();
});
$("heat").addEventListener("input", () => { viewer.heatOpacity = $("heat").value / 100; viewer.draw(); });
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
