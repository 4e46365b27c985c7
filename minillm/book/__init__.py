"""What the book's chapters run on: lab trains their models once, show draws."""
