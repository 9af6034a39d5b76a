"""Parts that pages are made of. A page uses these before it uses NiceGUI's own."""
