// Sends the forms of the API's page and shows what comes back.
"use strict";

const csrf = document.querySelector('meta[name="csrf-token"]').content;
const SHOWN = 20_000; // characters of an answer

// The values that were filled in, as [name, text, type]; what was left empty is not sent.
function filledIn(form, skip) {
  const values = [];
  for (const field of form.elements) {
    if (!field.name || field.type === "file" || skip.has(field.name) || !field.value.trim()) continue;
    const type = field.dataset.type;
    const texts = type === "array" ? field.value.trim().split(/\s+/) : [field.value];
    for (const text of texts) values.push([field.name, text, type]);
  }
  return values;
}

function requestOf(form) {
  const inPath = new Set();
  let path = form.dataset.path.replace(/\{(\w+)\}/g, (_, name) => {
    inPath.add(name);
    return encodeURIComponent(form.elements[name].value.trim());
  });
  const values = filledIn(form, inPath);
  const options = { method: form.dataset.method, headers: {} };
  if (options.method === "GET") {
    const query = new URLSearchParams(values.map(([name, text]) => [name, text])).toString();
    if (query) path += `?${query}`;
    return [path, options];
  }
  options.headers["X-CSRF-Token"] = csrf;
  if (form.dataset.json) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(
      Object.fromEntries(
        values.map(([name, text, type]) => [
          name,
          type === "integer" || type === "number" ? Number(text) : text,
        ]),
      ),
    );
  } else {
    options.body = new FormData();
    for (const field of form.elements) {
      if (field.type === "file") options.body.append(field.name, field.files[0]);
    }
    for (const [name, text] of values) options.body.append(name, text);
  }
  return [path, options];
}

async function shown(answer) {
  const type = answer.headers.get("Content-Type") || "";
  if (!/json|text/.test(type)) {
    const size = (await answer.blob()).size;
    return `${size.toLocaleString("en")} bytes of ${type}`;
  }
  let text = await answer.text();
  if (type.includes("json")) text = JSON.stringify(JSON.parse(text), null, 2);
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}\n…` : text;
}

document.addEventListener("submit", async (event) => {
  const form = event.target.closest(".try-it");
  if (!form) return;
  event.preventDefault();
  const output = form.querySelector("output");
  const said = output.querySelector(".said");
  const [path, options] = requestOf(form);
  output.hidden = false;
  said.textContent = `${options.method} ${path} …`;
  output.querySelector("code").textContent = "";
  try {
    const answer = await fetch(path, options);
    const text = await shown(answer);
    said.textContent = `${options.method} ${path}: ${answer.status} ${answer.statusText}`;
    output.querySelector("code").textContent = text;
  } catch (error) {
    said.textContent = `No answer came: ${error.message}`;
  }
});
