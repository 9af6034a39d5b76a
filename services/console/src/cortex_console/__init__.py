"""Administrators' console in the browser: pages over the admin API and the gateway."""
