"use strict";

// Names of classes and files may hold anything. They reach the page by textContent only.
const $ = (id) => document.getElementById(id);
const FIT = {
  crop: "The network sees the middle square",
  pad: "The network sees the whole picture in a square",
  squash: "The network sees the picture squeezed into a square",
};
const TOP = 5;
let model = null;
let latest = null; // the request for the newest picture
let url = null;

async function answerOf(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running?");
  }
  const text = await response.text();
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new Error("The server gave an answer that cannot be read.");
  }
  if (answer.error) throw new Error(answer.error);
  return answer;
}

async function loadModel() {
  model = await answerOf("model");
  const count = model.class_names.length;
  $("about").replaceChildren("The network ", named(model.name), ` knows ${count} classes: `);
  const some = model.class_names.slice(0, 12);
  some.forEach((name, n) => $("about").append(n ? ", " : "", named(name)));
  $("about").append(count > some.length ? " and more." : ".");
}

function named(text) {
  const element = document.createElement("bdi");
  element.textContent = text;
  return element;
}

function percent(share) {
  return share < 0.0005 ? "<0.1%" : `${(100 * share).toFixed(1)}%`;
}

function fail(message) {
  $("status").textContent = "";
  $("error").textContent = message;
  $("error").hidden = false;
}

async function classify(file) {
  latest?.abort();
  const request = (latest = new AbortController());
  $("error").hidden = true;
  document.body.classList.add("busy");
  try {
    if (!model) await loadModel();
    if (file.size > model.max_bytes) {
      const limit = model.max_bytes.toLocaleString("en");
      throw new Error(`${file.name} has more than ${limit} bytes. Choose a smaller file.`);
    }
    $("status").textContent = `Classifying ${file.name} …`;
    const options = { method: "POST", body: file, signal: request.signal };
    const answer = await answerOf(`predict?top=${TOP}&map=true`, options);
    if (request === latest) show(file, answer);
  } catch (error) {
    if (request === latest && error.name !== "AbortError") {
      $("result").hidden = true;
      document.body.classList.remove("has-result");
      fail(error.message);
    }
  } finally {
    if (request === latest) document.body.classList.remove("busy");
  }
}

function show(file, answer) {
  const best = answer.predictions[0];
  showPicture(file, answer);
  $("best").textContent = best.class;
  $("share").textContent = percent(best.probability);
  $("file-name").textContent = file.name;
  const doubt = answer.unlike
    ? "This picture is unlike the training data. The class may mean nothing."
    : "";
  $("unlike").textContent = doubt;
  $("unlike").hidden = !doubt;
  $("bars").replaceChildren(...answer.predictions.map(bar));
  $("result").hidden = false;
  document.body.classList.add("has-result");
  $("unknown").hidden = answer.unlike !== null;
  const unknown = $("unknown").hidden ? "" : $("unknown").textContent;
  const result = `${file.name}: ${best.class}, ${percent(best.probability)}.`;
  $("status").textContent = [result, doubt, unknown].filter(Boolean).join(" ");
}

function showPicture(file, answer) {
  const picture = $("picture");
  if (url) URL.revokeObjectURL(url);
  url = URL.createObjectURL(file);
  picture.className = model.resize;
  picture.style.imageOrientation = model.as_stored ? "none" : "from-image";
  picture.onerror = () => { // a format that only the server reads
    picture.onerror = null;
    picture.className = "pixels";
    picture.src = answer.seen;
  };
  picture.alt = `The picture ${file.name}`;
  picture.src = url;
  const map = $("map");
  map.hidden = !answer.map || !$("show").checked;
  if (answer.map) map.src = answer.map;
  map.alt = `Where the network finds ${answer.predictions[0].class}`;
  $("switch").hidden = $("legend").hidden = !answer.map;
  $("nomap").hidden = !answer.map_error;
  $("nomap").textContent = answer.map_error ?? "";
  $("seen").src = answer.seen;
  const size = `${model.image_size} × ${model.image_size} pixels`;
  $("seen-text").textContent = `${FIT[model.resize]}, as ${size}.`;
}

function bar(prediction) {
  const item = document.createElement("li");
  const row = document.createElement("div");
  const share = document.createElement("span");
  const track = document.createElement("div");
  const fill = document.createElement("div");
  row.className = "row";
  share.textContent = percent(prediction.probability);
  row.append(named(prediction.class), share);
  track.className = "track";
  track.setAttribute("aria-hidden", "true");
  fill.className = "fill";
  fill.style.width = `${100 * prediction.probability}%`;
  track.append(fill);
  item.append(row, track);
  return item;
}

function take(files) {
  const file = [...(files ?? [])][0];
  if (file) classify(file);
  else fail("That is not a file. Drop or paste a picture.");
}

for (const [button, input] of [["drop", "file"], ["camera", "photo"]]) {
  $(button).addEventListener("click", () => $(input).click());
  $(input).addEventListener("change", () => {
    if ($(input).files.length) take($(input).files);
    $(input).value = ""; // so that the same file can be chosen again
  });
}
$("show").addEventListener("change", () => { $("map").hidden = !$("show").checked; });
let depth = 0; // of elements that a dragged file is over
document.addEventListener("dragenter", () => {
  depth += 1;
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", () => {
  depth -= 1;
  if (depth <= 0) document.body.classList.remove("dragging");
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  document.body.classList.remove("dragging");
  take(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => take(event.clipboardData.files));
$("curl").textContent = `curl --data-binary @photo.jpg '${new URL("predict", location.href)}?top=3'`;
loadModel().catch((error) => fail(error.message));
