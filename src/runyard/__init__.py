"""Runyard: a self-hosted, Runpod-compatible serverless platform for AI workloads."""

__version__ = "0.1.0"
