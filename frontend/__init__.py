"""The DSL: networks declared in Python become layer graphs."""
