"""Planning: a Spec and what the host has become a Plan, or a PlanError says what is missing."""

from .build import build
from .model import Agent, Export, Machine, Plan

__all__ = ["Agent", "Export", "Machine", "Plan", "build"]
