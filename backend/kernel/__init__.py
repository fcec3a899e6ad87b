"""The kernel language: IR, builder, text form, interpreter, proofs."""
