"""A policy in front of the Docker socket."""
