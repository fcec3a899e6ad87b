"""The table of algorithms that the cost model chooses from: book.py has it whole."""
