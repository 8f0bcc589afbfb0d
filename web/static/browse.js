// Pages for looking around work without this file. It looks again when an answer was still being
// made, and opens or closes the whole tree of classes.
"use strict";

const waiting = document.querySelector("[data-again]");
if (waiting) setTimeout(() => location.reload(), Number(waiting.dataset.again));

const tools = document.querySelector(".tree-tools");
if (tools) {
  tools.hidden = false;
  tools.addEventListener("click", (event) => {
    const wanted = event.target.dataset.tree;
    if (!wanted) return;
    for (const details of document.querySelectorAll(".tree details")) details.open = wanted === "open";
  });
}
