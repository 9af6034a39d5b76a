"""What the browser reaches without NiceGUI: signing in and out, assets; and what every request passes."""
