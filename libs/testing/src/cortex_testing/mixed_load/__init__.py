"""Mixed load on a whole Cortex while its parts are killed: nothing may hang, look whole when it is not, or be counted wrongly."""
