// The little that scripts add: GOV.UK's own components, copy buttons and a print button.  Every page works without.
import { initAll } from "./govuk-frontend.min.js";

initAll();

for (const button of document.querySelectorAll("[data-copies]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copies);
    await navigator.clipboard.writeText(source.value ?? source.textContent);
    const said = document.getElementById(button.dataset.says);
    if (said) said.textContent = "Copied";
  });
}

for (const button of document.querySelectorAll("[data-prints]")) {
  button.hidden = false;
  button.addEventListener("click", () => window.print());
}

// After an answer to a form, reading starts at what is new: the error summary does this itself, else the heading.
const heading = document.querySelector("h1[data-focus]");
if (heading && !document.querySelector(".govuk-error-summary")) {
  heading.setAttribute("tabindex", "-1");
  heading.focus({ preventScroll: true });
}
