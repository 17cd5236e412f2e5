"""From scores to grades: anchors, boundaries, projection, and the links between batches.

Pure mathematics. The scales people publish are data in `grade_scales/`.
"""
