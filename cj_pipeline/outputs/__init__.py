"""What leaves a batch: artefact, report, class list, feedback, plots.

Reads values and writes files' contents; when they are published is `steps.publish`.
"""
