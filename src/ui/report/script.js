"use strict";
(() => {
  const steps = [...document.querySelectorAll("details.step")];
  // A link leads to a step: it is opened, since what is folded cannot be read.
  const open = () => {
    const step = location.hash && document.getElementById(location.hash.slice(1));
    if (step && step.matches("details.step")) {
      step.open = true;
      step.scrollIntoView({ block: "start" });
    }
  };
  addEventListener("hashchange", open);
  open();

  const tools = document.querySelector(".tools");
  if (!tools) return;
  tools.hidden = false;
  tools.addEventListener("submit", (event) => event.preventDefault());
  const filter = document.getElementById("filter");
  filter.addEventListener("input", () => {
    const wanted = filter.value.toLowerCase();
    for (const step of steps) step.hidden = !step.textContent.toLowerCase().includes(wanted);
  });
  const unfold = document.getElementById("unfold");
  unfold.addEventListener("click", () => {
    const all = steps.some((step) => !step.open);
    for (const step of steps) step.open = all;
    unfold.textContent = all ? "Fold all" : "Unfold all";
  });
  // What is on paper cannot be unfolded.
  addEventListener("beforeprint", () => {
    for (const step of steps) if (step.matches(".failed")) step.open = true;
  });
})();
