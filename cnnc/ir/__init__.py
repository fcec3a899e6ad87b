"""The layer graph: types, layouts, values, nodes; its text form and its verifier. Knows no op."""
