// Lines of a log: kept in the browser, bounded, filtered here so that no keystroke asks anybody for them again.
const MOST = 5000;
export default {
  template: `<div class="c-log" :class="{ 'c-log-wrap': wrap }" role="log" aria-live="off" tabindex="0" :aria-label="label"
    @scroll="scrolled"></div>`,
  props: { label: String },
  data: () => ({ wrap: true }),
  created() {
    this.lines = [];
    this.search = "";
    this.levels = null;
    this.following = true;
  },
  methods: {
    push(lines) {
      const some = document.createDocumentFragment();
      for (const [text, level] of lines) {
        const line = { text, level, element: document.createElement("div") };
        line.element.className = `c-log-line c-log-${level}`;
        this.draw(line);
        this.lines.push(line);
        some.append(line.element);
      }
      this.$el.append(some);
      const over = this.lines.splice(0, Math.max(0, this.lines.length - MOST));
      for (const line of over) line.element.remove();
      this.settle();
    },
    draw(line) {
      const at = this.search ? line.text.toLowerCase().indexOf(this.search) : -1;
      line.element.hidden = (this.search && at < 0) || (this.levels && !this.levels.includes(line.level));
      if (at < 0) {
        line.element.textContent = line.text || "\u00a0";
        return;
      }
      const mark = document.createElement("mark");
      mark.textContent = line.text.slice(at, at + this.search.length);
      line.element.replaceChildren(line.text.slice(0, at), mark, line.text.slice(at + this.search.length));
    },
    filter(search, levels) {
      this.search = (search || "").toLowerCase();
      this.levels = levels;
      for (const line of this.lines) this.draw(line);
      this.settle();
      this.$emit("shown", { shown: this.shown().length, all: this.lines.length });
    },
    shown() {
      return this.lines.filter((line) => !line.element.hidden);
    },
    setWrap(wrap) {
      this.wrap = wrap;
    },
    follow(following) {
      this.following = following;
      this.settle();
    },
    settle() {
      if (this.following) this.$el.scrollTop = this.$el.scrollHeight;
    },
    scrolled() {
      const atEnd = this.$el.scrollHeight - this.$el.scrollTop - this.$el.clientHeight < 24;
      if (atEnd !== this.following) {
        this.following = atEnd;
        this.$emit("following", atEnd);
      }
    },
    clear() {
      this.lines = [];
      this.$el.replaceChildren();
    },
    text() {
      return this.shown().map((line) => line.text).join("\n");
    },
    copy(button) {
      window.cortexCopy(this.text(), button);
    },
    download(name) {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([this.text() + "\n"], { type: "text/plain" }));
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    },
  },
};
