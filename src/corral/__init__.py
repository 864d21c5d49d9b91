"""corral runs coding agents in confined virtual machines."""

__version__ = "0.1.0"
