"""Hypervisors: one folder each, with render.py (Plan to command lines) and control.py."""
