"""Flower, the task view: how it is started, and how it shows labrelay's tasks."""
