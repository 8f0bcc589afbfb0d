// Completions below the search box: a combobox with a list, as the ARIA practices describe it.
// Without this file the box is a plain one.

const box = document.querySelector("input[data-complete]");
const WAIT = 70; // milliseconds without a key before the server is asked

if (box) {
  const list = document.getElementById("completions");
  const answers = new Map();
  let typed = "";
  let options = [];
  let active = -1;
  let timer = 0;
  let asked = null;

  box.setAttribute("role", "combobox");
  box.setAttribute("aria-autocomplete", "list");
  box.setAttribute("aria-controls", list.id);
  box.setAttribute("aria-expanded", "false");

  const isOpen = () => !list.hidden;

  const close = () => {
    clearTimeout(timer);
    if (asked) asked.abort();
    list.hidden = true;
    active = -1;
    box.setAttribute("aria-expanded", "false");
    box.removeAttribute("aria-activedescendant");
  };

  const choose = (number) => {
    active = number;
    [...list.children].forEach((item, at) => {
      item.setAttribute("aria-selected", String(at === number));
    });
    if (number < 0) {
      box.value = typed;
      box.removeAttribute("aria-activedescendant");
    } else {
      box.value = options[number].query;
      box.setAttribute("aria-activedescendant", list.children[number].id);
      list.children[number].scrollIntoView({ block: "nearest" });
    }
  };

  const show = (found) => {
    options = found;
    if (!found.length || document.activeElement !== box) {
      close();
      return;
    }
    list.replaceChildren(
      ...found.map((option, at) => {
        const item = document.createElement("li");
        item.id = `completion-${at}`;
        item.setAttribute("role", "option");
        item.setAttribute("aria-selected", "false");
        const text = document.createElement("span");
        text.className = "text";
        text.textContent = option.own ? option.label : option.text;
        item.append(text);
        if (option.own || option.label !== option.text) {
          const label = document.createElement("span");
          label.className = "label";
          label.textContent = option.own ? "your own" : option.label;
          item.append(label);
        }
        const count = document.createElement("span");
        count.className = "n";
        count.textContent = option.count.toLocaleString("en");
        item.append(count);
        return item;
      }),
    );
    list.hidden = false;
    active = -1;
    box.setAttribute("aria-expanded", "true");
    box.removeAttribute("aria-activedescendant");
  };

  const ask = async () => {
    const query = box.value;
    if (answers.has(query)) {
      show(answers.get(query));
      return;
    }
    if (asked) asked.abort();
    asked = new AbortController();
    try {
      const url = `${box.dataset.complete}?q=${encodeURIComponent(query)}`;
      const answer = await fetch(url, { signal: asked.signal });
      if (!answer.ok) return;
      const { completions } = await answer.json();
      answers.set(query, completions);
      if (box.value === query) show(completions);
    } catch (error) {
      if (error.name !== "AbortError") close();
    }
  };

  box.addEventListener("input", () => {
    typed = box.value;
    clearTimeout(timer);
    if (typed.trim()) timer = setTimeout(ask, WAIT);
    else close();
  });

  box.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!isOpen()) {
        typed = box.value;
        if (typed.trim()) ask();
        return;
      }
      const count = options.length;
      const next = active + (event.key === "ArrowDown" ? 1 : -1);
      choose(next < -1 ? count - 1 : next >= count ? -1 : next); // -1 is what was typed
    } else if (event.key === "Escape" && isOpen()) {
      event.preventDefault();
      box.value = typed;
      close();
    } else if (event.key === "Tab" && isOpen() && active >= 0) {
      event.preventDefault(); // takes it and goes on typing
      box.value += " ";
      typed = box.value;
      close();
    } else if (event.key === "Enter") {
      close();
    }
  });

  list.addEventListener("pointerdown", (event) => {
    const item = event.target.closest("[role=option]");
    if (!item) return;
    event.preventDefault(); // the box keeps the focus
    choose([...list.children].indexOf(item));
    close();
    box.form.requestSubmit();
  });

  box.addEventListener("blur", close);
  // Coming back with the browser's button shows the page as it was left.
  window.addEventListener("pageshow", close);
}
