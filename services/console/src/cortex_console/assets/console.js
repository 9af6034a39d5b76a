// Runs on every page, before it is drawn.
(() => {
  const read = () => (document.cookie.match(/(?:^|; )cortex_theme=(light|dark)/) || [])[1];
  window.cortexRememberTheme = (theme) => {
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `cortex_theme=${theme}; Path=/; Max-Age=31536000; SameSite=Strict${secure}`;
  };
  let theme = read();
  if (!theme) {
    theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    window.cortexRememberTheme(theme);
  }
  document.documentElement.classList.toggle("dark", theme === "dark");
  document.addEventListener("DOMContentLoaded", () => {
    const main = document.querySelector("main");
    if (main && !main.id) {
      main.id = "main";
      main.tabIndex = -1;
    }
    const submit = document.querySelector("form[data-once]");
    submit?.addEventListener("submit", () => {
      const button = submit.querySelector("button[type=submit]");
      if (button) button.disabled = true;
    });
    document.querySelector("[data-theme-toggle]")?.addEventListener("click", () => {
      const dark = document.documentElement.classList.toggle("dark");
      window.cortexRememberTheme(dark ? "dark" : "light");
    });
  });
  // Without https there is no navigator.clipboard.
  const copied = (text) => {
    const area = document.createElement("textarea");
    area.value = text;
    area.style.cssText = "position:fixed;opacity:0";
    (document.querySelector("[role=dialog]") || document.body).append(area);
    area.select();
    const ok = document.execCommand("copy");
    area.remove();
    return ok;
  };
  window.cortexCopy = async (text, button) => {
    let ok = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      ok = copied(text);
    }
    const word = button?.querySelector(".block");
    if (!word) return;
    const before = (word.dataset.before ||= word.textContent);
    word.textContent = ok ? "Copied" : "Select it and press Ctrl+C";
    setTimeout(() => (word.textContent = before), 2000);
  };
  document.addEventListener("click", (event) => {
    const copy = event.target.closest?.(".c-md-copy");
    if (copy) window.cortexCopy(copy.closest(".c-md-code").querySelector("pre").textContent, copy);
    const link = event.target.closest?.(".c-md a[href]");
    if (link) {
      event.preventDefault();
      window.open(link.href, "_blank", "noopener,noreferrer");
    }
  });
  // What is typed and not sent outlives a reload of its page, in this tab and until somebody signs out.
  const UNFINISHED = "cortex.unfinished:";
  const stored = (act) => {
    try {
      return act(sessionStorage);
    } catch {
      return null; // no room, or no storage allowed: then nothing is kept
    }
  };
  const [visit] = performance.getEntriesByType("navigation");
  const again = visit?.type === "reload" || visit?.type === "back_forward";
  if (new URLSearchParams(location.search).get("reason") === "out") {
    stored((all) => Object.keys(all).filter((key) => key.startsWith(UNFINISHED)).forEach((key) => all.removeItem(key)));
  }
  window.cortexUnfinished = {
    keep: (name, values) =>
      stored((all) =>
        Object.keys(values).length
          ? all.setItem(UNFINISHED + name, JSON.stringify(values))
          : all.removeItem(UNFINISHED + name),
      ),
    // What was sent leaves; what was typed meanwhile stays.
    sent: (name, text) =>
      stored((all) => {
        if (JSON.parse(all.getItem(UNFINISHED + name))?.text === text) all.removeItem(UNFINISHED + name);
      }),
    back: (name) =>
      stored((all) => {
        if (!again) all.removeItem(UNFINISHED + name);
        return JSON.parse(all.getItem(UNFINISHED + name));
      }),
  };
  document.addEventListener("input", (event) => {
    const { unfinished: name } = event.target.dataset ?? {};
    if (name) window.cortexUnfinished.keep(name, event.target.value ? { text: event.target.value } : {});
  });
  window.cortexSkip = () => {
    const main = document.querySelector("main");
    if (main) {
      main.tabIndex = -1;
      main.focus();
    }
  };
})();
