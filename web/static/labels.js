// Without this file each button sends its form and the page comes again. With it the answer is
// entered in place, and Y and N say something of the tag that has the focus.
import { post, say } from "./common.js";

async function send(form, button) {
  const body = new URLSearchParams(new FormData(form));
  body.set(button.name, button.value);
  return (await post("/labels.json", body)).json();
}

function button(name, value, label) {
  const made = document.createElement("button");
  made.setAttribute("form", "say");
  made.name = name;
  made.value = value;
  made.setAttribute("aria-label", label);
  made.textContent = "×";
  return made;
}

// Enter what the server knows now of a clip, wherever the page shows it.
function show(clip) {
  const said = new Map(clip.corrections.map((each) => [each.mid || each.label, each.verdict]));
  for (const one of document.querySelectorAll(".verdicts button")) {
    const [, number, mid] = /^(\d+):[\d.]*:[\d.]*:(.*)$/s.exec(one.value);
    if (Number(number) !== clip.clip) continue;
    const wanted = one.matches(":first-child") ? "confirmed" : "rejected";
    const pressed = said.get(mid) === wanted;
    one.setAttribute("aria-pressed", String(pressed));
    one.name = pressed ? "remove" : wanted === "confirmed" ? "confirm" : "reject";
  }
  for (const list of document.querySelectorAll(`[data-said="${clip.clip}"]`)) {
    list.replaceChildren(...clip.corrections.map((each) => {
      const item = document.createElement("li");
      item.className = each.verdict;
      const text = document.createElement("span");
      text.textContent = `${each.label} `;
      if (each.mid !== null) {
        const verdict = document.createElement("span");
        verdict.className = "count";
        verdict.textContent = each.verdict;
        text.append(verdict);
      }
      const value = `${clip.clip}:${each.start}:${each.end}:${each.mid || each.label}`;
      item.append(text, button("remove", value, `Take back: ${each.label} ${each.verdict}`));
      return item;
    }));
  }
}

const words = { confirm: "confirmed", reject: "rejected", add: "added", remove: "taken back" };

document.addEventListener("submit", async (event) => {
  const form = event.target;
  const pressed = event.submitter;
  if (!form.classList.contains("say") || !pressed) return;
  event.preventDefault();
  try {
    const row = pressed.closest(".corrections tr");
    const name = pressed.dataset.label || (form.elements.label && form.elements.label.value)
      || (pressed.getAttribute("aria-label") || "").replace(/^(Confirm|Reject|Take back:|Undo:) /, "");
    const answer = await send(form, pressed);
    show(answer.clip);
    if (row) {
      const next = row.nextElementSibling || row.previousElementSibling;
      row.remove();
      if (next) next.querySelector("button").focus();
    }
    if (form.elements.label) form.elements.label.value = "";
    say(`${name}: ${answer.changed ? words[answer.action] : "nothing changed"}.`);
  } catch (error) {
    say(error.message);
  }
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select, [contenteditable]")) return;
  const wanted = { y: ".verdicts :first-child", n: ".verdicts :last-child" }[event.key.toLowerCase()];
  const row = wanted && event.target.closest(".tags li");
  const chosen = row && row.querySelector(wanted);
  if (!chosen) return;
  event.preventDefault();
  chosen.click();
});
