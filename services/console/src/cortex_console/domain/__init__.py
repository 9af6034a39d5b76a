"""Pure decisions of the console: what is shown, in which words, to whom."""
