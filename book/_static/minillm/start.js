// Loads a page's widgets when the first of them comes near view. A browser that cannot run them is told so, and keeps
// what the page shows without scripts. In old JavaScript, since the old browsers have to read it.
(function () {
  "use strict";
  var here = document.currentScript.src, folder = here.slice(0, here.lastIndexOf("/") + 1);

  function modern() {
    try {
      new Function("a", "for (const {b, ...c} of a) a ??= b?.c ?? 1n; return /\\p{L}/u;");
      return window.customElements && window.IntersectionObserver && window.TextDecoder;
    } catch (error) {
      return false;
    }
  }

  function load() {
    var elements = document.querySelectorAll(".minillm"), names = [], files, i, name;
    for (i = 0; i < elements.length; i++) {
      name = elements[i].tagName.toLowerCase().replace("minillm-", "");
      if (names.indexOf(name) < 0) names.push(name);
    }
    files = ["minillm", "widgets", "tokens", "weights/index"].concat(names.map(function (each) { return "widgets/" + each; }));
    files.forEach(function (file) {
      var script = document.createElement("script");
      script.src = folder + file + ".js";
      script.async = false; // run in this order
      document.head.appendChild(script);
    });
  }

  function start() {
    var elements = document.querySelectorAll(".minillm"), observer, i, note;
    if (!modern()) {
      for (i = 0; i < elements.length; i++) {
        note = document.createElement("p");
        note.className = "minillm-note";
        note.textContent = "这里本来可以和模型互动，可是这个浏览器太旧，运行不了它。";
        elements[i].appendChild(note);
      }
      return;
    }
    observer = new IntersectionObserver(function (entries) {
      if (!entries.some(function (entry) { return entry.isIntersecting; })) return;
      observer.disconnect();
      load();
    }, {rootMargin: "400px"});
    for (i = 0; i < elements.length; i++) observer.observe(elements[i]);
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
