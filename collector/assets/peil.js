// Small comforts for live pages; everything works without them.
// While a section is replaced, opened details stay open and the focus stays where it was.
// The line in the footer tells whether updates arrive.
(function () {
  "use strict";
  var open = [], focus = null;

  document.addEventListener("htmx:sseBeforeMessage", function (event) {
    var part = event.target;
    open = Array.from(part.querySelectorAll("details[open][id]"), function (d) { return d.id; });
    var now = document.activeElement;
    focus = now && part.contains(now) ? { href: now.getAttribute("href"), tag: now.tagName, of: now.parentElement.id } : null;
  });

  document.addEventListener("htmx:sseMessage", function (event) {
    var part = event.target;
    open.forEach(function (id) {
      var details = document.getElementById(id);
      if (details) { details.open = true; }
    });
    if (!focus) { return; }
    var again = Array.from(part.querySelectorAll(focus.tag)).find(function (e) {
      return focus.href ? e.getAttribute("href") === focus.href : e.parentElement.id === focus.of;
    });
    if (again) { again.focus({ preventScroll: true }); }
  });

  function say(text) {
    var line = document.getElementById("live-state");
    if (line && line.textContent !== text) { line.textContent = text; }
  }
  document.addEventListener("htmx:sseOpen", function () { say("This page keeps itself up to date."); });
  document.addEventListener("htmx:sseError", function () { say("Updates have stopped; trying to get them again. Reload the page if this lasts."); });
})();
