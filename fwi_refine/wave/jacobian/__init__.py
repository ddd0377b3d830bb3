"""Jacobians of a record: by every cell, by reciprocity; and by the rows of flat layers."""
