// Check what the page needs before the modules load; a module cannot, it would not load either.
(function () {
  "use strict";
  function fail(text) {
    var status = document.getElementById("status");
    status.className = "error";
    status.textContent = text;
  }
  window.addEventListener("error", function (event) { fail("This page failed: " + event.message); });
  if (location.protocol === "file:") {
    fail("The page was opened as a file, and browsers load no model from files. Serve this folder, "
      + "for example with: python -m http.server --directory FOLDER; then open "
      + "http://localhost:8000");
  } else if (typeof WebAssembly !== "object") {
    fail("This browser has no WebAssembly, or it is switched off (as in iOS' Lockdown Mode).");
  } else {
    import("./page.js").catch(function (error) { fail("The page cannot start: " + error.message); });
  }
})();
