"""Attacks on every guarantee of docs/threat-model.md: each is tried, and must be refused."""
