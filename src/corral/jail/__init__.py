"""Confinement of one process: combinators for jails, seccomp profiles."""
