"""Segmenters: what sees structures in a volume. Each is a plug-in by the entry point group anamnesis.segmenters."""
