"""What the book's chapters run on: lab trains their models once, show draws, page lets the reader
ask them in a browser."""
